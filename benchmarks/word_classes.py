"""The classes of the collections that ``words.py`` measures: broader words for them, and their names in ImageNet."""

from __future__ import annotations

_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO = _NAMES.split(",")
# Of a text, the names of classes of any of the collections that it means.
BROADER = {
    "animal": "bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,ant,bass,cougar face,crayfish,crocodile head,"
    "dalmatian,dolphin,emu,flamingo,hawksbill,hedgehog,ibis,lobster,octopus,pigeon,platypus,rooster,scorpion,tick,"
    "wild cat",
    "mammal": "cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,cougar face,dalmatian,dolphin,hedgehog,platypus,"
    "wild cat",
    "sea animal": "bass,crayfish,dolphin,hawksbill,lobster,octopus",
    "bird": "emu,flamingo,ibis,pigeon,rooster",
    "dog": "dalmatian",
    "puppy": "dalmatian,dog",
    "cat": "cougar face,wild cat",
    "kitten": "cat,wild cat",
    "pet": "cat,dog",
    "insect": "ant",
    "arachnid": "scorpion,tick",
    "shellfish": "crayfish,lobster",
    "fish": "bass",
    "turtle": "hawksbill",
    "vehicle": "bicycle,car,motorcycle,airplane,bus,train,truck,boat,airplanes,motorbikes,car side",
    "boat": "ketch,schooner",
    "ship": "ketch,schooner",
    "plane": "airplanes,airplane",
    "car": "car side",
    "musical instrument": "electric guitar,mandolin",
    "guitar": "electric guitar",
    "weapon": "revolver",
    "tool": "wrench,stapler",
    "computer": "laptop",
    "phone": "cellphone,cell phone",
    "lamp": "chandelier",
    "building": "minaret,pagoda",
    "statue": "buddha",
    "flower": "water lilly",
    "plant": "joshua tree,water lilly,potted plant",
    "fruit": "strawberry,banana,apple,orange",
    "food": "banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,strawberry",
    "furniture": "chair,couch,bed,dining table",
    "kitchen appliance": "microwave,oven,toaster,refrigerator",
    "sports equipment": "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,frisbee",
    "footwear": "shoes",
    "trousers": "pants",
    "jacket": "outwear",
    "headwear": "hat",
}

# What each class is called among those of ImageNet; "first .. last" is all from one to the other. Classes that ImageNet
# lacks, or has in a part only (crocodile: a crocodile and an alligator; ketch: a yawl), are left out.
_CAR = (
    "station wagon;taxicab;convertible;jeep;limousine;minivan;ford model t;race car;sports car;police van;car wheel;"
    "car mirror;radiator grille;pickup truck"
)
IN_IMAGENET = {
    "airplanes": "airliner;military aircraft;airplane wing",
    "airplane": "airliner;military aircraft;airplane wing",
    "ant": "ant",
    "apple": "Granny Smith apple",
    "backpack": "backpack",
    "banana": "banana",
    "bear": "brown bear .. sloth bear",
    "bed": "four-poster bed",
    "bench": "park bench",
    "bicycle": "mountain bike;tandem bicycle",
    "binocular": "binoculars",
    "bird": "rooster .. great grey owl;black grouse .. black swan;white stork .. albatross",
    "boat": "gondola;motorboat;lifeboat;kayak;yawl (boat);catamaran;trimaran;schooner;fireboat;container ship;"
    "ocean liner;pirate ship",
    "bottle": "beer bottle;wine bottle;soda bottle;water bottle;pill bottle",
    "bowl": "mixing bowl;soup bowl",
    "broccoli": "broccoli",
    "bus": "school bus;minibus;trolleybus",
    "camera": "reflex camera;Polaroid camera",
    "car": _CAR,
    "car side": _CAR,
    "cat": "tabby cat .. Egyptian Mau",
    "cell phone": "mobile phone",
    "cellphone": "mobile phone",
    "chair": "folding chair;rocking chair;barber chair;throne",
    "clock": "analog clock;digital clock;wall clock",
    "couch": "couch",
    "cougar face": "cougar",
    "cow": "ox",
    "crayfish": "crayfish;spiny lobster",
    "cup": "coffee mug;tea cup",
    "dalmatian": "Dalmatian",
    "dining table": "dining table",
    "dog": "Chihuahua .. Mexican hairless dog (xoloitzcuintli)",
    "electric guitar": "electric guitar",
    "elephant": "Asian elephant;African bush elephant;tusker",
    "ewer": "drink pitcher",
    "flamingo": "flamingo",
    "hair drier": "hair dryer",
    "handbag": "purse;messenger bag",
    "horse": "common sorrel horse",
    "hot dog": "hot dog",
    "keyboard": "computer keyboard;typewriter keyboard",
    "laptop": "laptop computer;notebook computer",
    "lobster": "American lobster;spiny lobster",
    "microwave": "microwave oven",
    "motorbikes": "moped;motor scooter",
    "motorcycle": "moped;motor scooter",
    "mouse": "computer mouse",
    "orange": "orange",
    "oven": "stove",
    "parking meter": "parking meter",
    "pizza": "pizza",
    "platypus": "platypus",
    "potted plant": "plant pot",
    "refrigerator": "refrigerator",
    "remote": "remote control",
    "revolver": "revolver",
    "rooster": "rooster",
    "sandwich": "cheeseburger",
    "schooner": "schooner",
    "scorpion": "scorpion",
    "sheep": "ram (adult male sheep);bighorn sheep",
    "sink": "sink",
    "skis": "ski",
    "spoon": "wooden spoon",
    "sports ball": "soccer ball;tennis ball;volleyball ball;baseball;basketball;rugby ball;golf ball;ping-pong ball",
    "stop sign": "traffic or street sign",
    "strawberry": "strawberry",
    "t-shirt": "T-shirt",
    "teddy bear": "teddy bear",
    "tennis racket": "racket",
    "tick": "tick",
    "tie": "Windsor tie;bow tie;bolo tie",
    "toaster": "toaster",
    "toilet": "toilet seat",
    "traffic light": "traffic light",
    "train": "high-speed train;electric locomotive;steam locomotive;railroad car;freight car",
    "truck": "pickup truck;garbage truck;tow truck;semi-trailer truck;fire truck;moving van",
    "tv": "television;monitor;CRT monitor",
    "umbrella": "umbrella",
    "vase": "vase",
    "wine glass": "goblet;red wine",
    "zebra": "zebra",
}


def numbers_of(name: str, titles: list[str]) -> set[int]:
    """Return the numbers of the ImageNet classes that have one of the names of a class."""
    numbers: set[int] = set()
    for part in IN_IMAGENET[name].split(";"):
        first, _, last = part.partition(" .. ")
        numbers.update(range(titles.index(first), titles.index(last or first) + 1))
    return numbers
