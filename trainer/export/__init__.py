"""``capsnet export``: a trained network for people who do not have this package.

    folder.py         the SavedModel that is written
    keras_model.py    the same network once more, of built-in Keras layers and operations alone: preprocessing, stem,
                      capsules (poses, windows, routing/) and head; copies.py has the layers with their weights
    archive.py        makes the .keras file one that older versions of Keras read too

The Keras model is for inference and fine-tuning: it holds all votes in memory, and gradients go through all iterations.
To give it another routing algorithm: a function in ``routing/``, and its line in ``routing/__init__.py``.
"""
