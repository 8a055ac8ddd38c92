"""``capsnet predict``: what a trained network sees in people's images.

sources.py   from files, folders, patterns and zips to images by name
images.py    from bytes to pixels as the run's tests see them
networks.py  a run or an export as one function of images
rows.py      the CSV
pictures.py  an image beside what the decoder makes of its class capsule
session.py   images through a network, batch by batch
run.py       from a request to an exit code
"""
