"""One launch of a compiled program that is not ours."""

from collections.abc import Sequence

import numpy as np

from actors.backends.base import Launch, UInt8Array
from actors.backends.gpu import Argument, Buffer, Gpu


def run(gpu: Gpu, code: bytes, launch: Launch, inputs: Sequence[UInt8Array]) -> list[UInt8Array]:
    """See `actors.backends.base.Backend.run_code`."""
    arguments: list[Argument] = []
    outputs: list[Buffer] = []
    given = iter(inputs)
    for argument in launch.arguments:
        if isinstance(argument, np.generic):
            arguments.append(argument)
        elif argument is None:
            arguments.append(gpu.put(next(given)))
        else:
            outputs.append(gpu.zeros(argument))
            arguments.append(outputs[-1])
    gpu.launch_code(code, launch.entry, launch.grid, launch.block, *arguments, shared_bytes=launch.shared_bytes)
    return [gpu.get(buffer, np.uint8, (buffer.nbytes,)) for buffer in outputs]
