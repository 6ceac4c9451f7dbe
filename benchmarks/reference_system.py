"""An image search as in tutorials, for comparison: Keras, NumPy and Flask in one file.

Each request writes its upload to a file, predicts with Keras, computes `np.linalg.norm` of all differences and sorts
all of them. It is served by the same gunicorn with the same threads as the product.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from flask import Flask, Response, jsonify, request


def create_app() -> Flask:
    """Create the app from REFERENCE_FEATURES (.npy), REFERENCE_WEIGHTS (.h5) and REFERENCE_UPLOADS (a folder)."""
    import keras
    import numpy as np
    from keras.applications.vgg16 import VGG16, preprocess_input
    from PIL import Image

    app = Flask(__name__)
    features = np.load(os.environ["REFERENCE_FEATURES"])
    uploads = Path(os.environ["REFERENCE_UPLOADS"])
    uploads.mkdir(parents=True, exist_ok=True)
    full = VGG16(weights=None)
    full.load_weights(os.environ["REFERENCE_WEIGHTS"])
    model = keras.Model(full.input, full.get_layer("fc2").output)

    @app.post("/search")
    def search() -> Response:
        path = uploads / f"{uuid.uuid4()}.jpg"
        Image.open(request.files["image"].stream).save(path)
        image = keras.utils.load_img(path, target_size=(224, 224))
        feature = model.predict(preprocess_input(keras.utils.img_to_array(image)[None]), verbose=0)[0]
        feature = feature / np.linalg.norm(feature)
        distances = np.linalg.norm(features - feature, axis=1)
        ids = np.argsort(distances)[:30]
        return jsonify(hits=[{"id": int(id_), "distance": float(distances[id_])} for id_ in ids])

    return app
