"""``capsnet export``: a trained network for people who do not have this package.

    folder.py         what is written, and that it is whole or not there
    saved_model.py    the network itself as a SavedModel
    keras_model.py    the same network once more, of built-in Keras layers and operations alone: preprocessing, stem,
                      capsules (poses, windows, routing/) and head; copies.py has the layers with their weights
    archive.py        makes the .keras file one that older versions of Keras read too
    check.py          what was written gives the network's scores
    about.py          the README beside them

The Keras model is for inference and fine-tuning: it holds all votes in memory, and gradients go through all iterations.
To give it another routing algorithm: a function in ``routing/``, and its line in ``routing/__init__.py``.
"""
