"""Create small KerasHub presets with random weights, and the results that KerasHub itself computes with them.

``python presets_by_keras_hub.py FOLDER PICTURE...`` writes a preset to each FOLDER/<name>/, and FOLDER/<name>.npz with
the (n, d) ``features`` of the pictures and, if there is a text tower, the (m, length) ``tokens`` and (m, d) ``vectors``
of ``TEXTS``. All but ``siglip`` are also exported into the cache, as the program's subprocess would do, because
TensorFlow and KerasHub are loaded here anyway.
FOLDER/resized.npz has the pictures as resized by Keras, by kind of resizing and number of the picture.
FOLDER/known.json has the presets that KerasHub itself lists, with their families and numbers of parameters.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

RESIZINGS = ["bicubic antialias", "bicubic crop", "bicubic", "bilinear antialias crop", "bilinear crop"]
TEXTS = [
    "a photo of a cat",
    "Two dogs, and one CAT!",
    "  a\tblue   sofa\nin a room ",
    "Ünïcødé — naïve café 東京 🐈",
    "it's the dog's; they'll \"run\" (fast) @ 3.5 km/h & more",
    "ÅNGSTRÖM A\u030angstrom \u212a \u3000 wide\u00a0space",
    "<|endoftext|> <|STARTOFTEXT|> </s> <eos> <pad>",
    "",
    " ".join(["a long text about cats and dogs"] * 12),
]
SENTENCES = [
    "a photo of a cat on a blue sofa",
    "two dogs run fast in a room",
    "the dog and the cat are in the photo",
    "it is a long text about cats and dogs",
]


def clip(keras_hub, side=32):
    from keras_hub.src.models.clip.clip_image_converter import CLIPImageConverter
    from keras_hub.src.tokenizers.byte_pair_tokenizer import BytePairTokenizer

    # KerasHub 0.32 does not set these if tensorflow-text is not installed, but needs them.
    def remember(self, vocabulary, merges):
        self.vocabulary, self.merges = vocabulary, merges

    BytePairTokenizer._set_vocabulary_and_merges_tf = remember

    def characters():
        kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [256 + i for i in range(256 - len(kept))]
        return [chr(code) for code in (*kept, *others)]

    letters = characters()
    merges = ["c a", "ca t</w>", "d o", "do g</w>", "p h", "o t", "ph ot", "phot o</w>", "b l", "u e</w>", "bl ue</w>"]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = keras_hub.models.CLIPTokenizer(
        vocabulary={token: i for i, token in enumerate(tokens)}, merges=merges, pad_with_end_token=True
    )
    sizes = {"hidden_dim": 16, "num_layers": 2, "num_heads": 2, "intermediate_dim": 32}
    backbone = keras_hub.models.CLIPBackbone(
        keras_hub.models.CLIPVisionEncoder(patch_size=8, image_shape=(side, side, 3), **sizes),
        keras_hub.models.CLIPTextEncoder(
            vocabulary_size=len(tokens), embedding_dim=16, max_sequence_length=24, **sizes
        ),
        projection_dim=12,
    )
    converter = CLIPImageConverter(
        image_size=(side, side),
        scale=[0.0146, 0.0150, 0.0142],
        offset=[-1.79, -1.75, -1.48],
        interpolation="bicubic",
    )
    preprocessor = keras_hub.models.CLIPPreprocessor(tokenizer, converter, sequence_length=24)
    return backbone, converter, preprocessor, [tokenizer]


def sentence_piece(**ids):
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **ids,
    )
    return model.getvalue()


def siglip(keras_hub, tokenizer, side=32):
    from keras_hub.src.models.siglip.siglip_image_converter import SigLIPImageConverter

    sizes = {"hidden_dim": 16, "num_layers": 2, "num_heads": 2, "intermediate_dim": 32}
    backbone = keras_hub.models.SigLIPBackbone(
        keras_hub.models.SigLIPVisionEncoder(patch_size=8, image_shape=(side, side, 3), **sizes),
        keras_hub.models.SigLIPTextEncoder(
            vocabulary_size=tokenizer.vocabulary_size(),
            embedding_dim=16,
            max_sequence_length=16,
            projection_dim=16,
            **sizes,
        ),
    )
    converter = SigLIPImageConverter(
        image_size=(side, side),
        scale=1 / 127.5,
        offset=-1.0,
        interpolation="bicubic",
        antialias=True,
        crop_to_aspect_ratio=False,
    )
    preprocessor = keras_hub.models.SigLIPPreprocessor(tokenizer, None, sequence_length=16)
    return backbone, converter, preprocessor, [tokenizer]


def siglip1(keras_hub):
    proto = sentence_piece(pad_id=-1, bos_id=-1, eos_id=1, unk_id=2)
    return siglip(keras_hub, keras_hub.models.SigLIPTokenizer(proto, add_eos=True))


def siglip2(keras_hub):
    proto = sentence_piece(
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", bos_piece="<bos>", eos_piece="<eos>"
    )
    return siglip(keras_hub, keras_hub.models.GemmaTokenizer(proto))


def dinov2(keras_hub, side=28):
    from keras_hub.src.models.dinov2.dinov2_image_converter import DINOV2ImageConverter

    backbone = keras_hub.models.DINOV2Backbone(
        patch_size=14,
        num_layers=2,
        hidden_dim=16,
        num_heads=2,
        intermediate_dim=32,
        num_register_tokens=1,
        image_shape=(side, side, 3),
        position_embedding_shape=(56, 56),
    )
    converter = DINOV2ImageConverter(
        image_size=(side, side), scale=[0.017, 0.0175, 0.0174], offset=[-2.1, -2.0, -1.8], interpolation="bicubic"
    )
    return backbone, converter, None, []


def main(folder: Path, pictures: list[Path]) -> None:
    import keras
    import keras_hub
    import numpy as np
    from PIL import Image

    keras.utils.set_random_seed(0)
    for name, make in {"clip": clip, "siglip": siglip1, "siglip2": siglip2, "dinov2": dinov2}.items():
        backbone, converter, preprocessor, tokenizers = make(keras_hub)
        # the usual initial values are so small that the towers hardly change their input
        for weight in backbone.trainable_weights:
            if len(weight.shape) > 1:
                weight.assign(weight * 2)
        for part in (backbone, converter, *tokenizers):
            part.save_to_preset(str(folder / name))
        backbone = keras_hub.models.Backbone.from_preset(str(folder / name))
        arrays = {}
        pixels = [np.asarray(Image.open(picture).convert("RGB"), "float32")[None] for picture in pictures]
        images = np.concatenate([np.asarray(converter(each)) for each in pixels])
        if preprocessor is None:
            arrays["features"] = np.asarray(backbone({"images": images}))[:, 0]
        else:
            arrays["features"] = np.asarray(backbone.get_vision_embeddings(images))
            tokens = preprocessor({"images": None, "prompts": TEXTS})["token_ids"]
            arrays["tokens"] = np.asarray(tokens)
            arrays["vectors"] = np.asarray(backbone.get_text_embeddings(tokens))
        np.savez(folder / f"{name}.npz", **arrays)
        if name != "siglip":
            export_preset(folder / name)
    arrays = {}
    for how in RESIZINGS:
        filter, *options = how.split()
        resizing = keras.layers.Resizing(
            24, 32, filter, antialias="antialias" in options, crop_to_aspect_ratio="crop" in options
        )
        arrays |= {f"{how} {number}": np.asarray(resizing(each))[0] for number, each in enumerate(pixels)}
    np.savez(folder / "resized.npz", **arrays)
    known = {
        name: [cls.__name__.removesuffix("Backbone").lower(), preset["metadata"]["params"]]
        for cls in (keras_hub.models.CLIPBackbone, keras_hub.models.SigLIPBackbone, keras_hub.models.DINOV2Backbone)
        for name, preset in cls.presets.items()
    }
    (folder / "known.json").write_text(json.dumps(known))


def export_preset(preset: Path) -> None:
    from searchengine.extractors import cache, make_spec
    from searchengine.extractors.export import export

    spec = make_spec(preset)
    with cache.new_entry(spec) as entry:
        export({"spec": spec.to_json(), "folder": str(entry), "file": str(preset / "model.weights.h5")}, print)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
