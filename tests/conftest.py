from __future__ import annotations

import gc
import sys


def pytest_collection_finish() -> None:
    """What the tests of this process compute is small; what they start has threads of its own."""
    gc.freeze()  # TensorFlow's hundreds of thousands of objects, which every collection would visit
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].config.threading.set_intra_op_parallelism_threads(1)  # workers share the cores
