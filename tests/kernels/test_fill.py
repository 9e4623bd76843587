"""The kernels of the fill: the same walks and roots as the reference."""

from actors.attestation.devices import memory_on
from actors.attestation.fill import Fill, HostMemory, fill_seed
from actors.attestation.fill_check import filled_mib
from actors.backends.cpu import CpuBackend
from actors.backends.on_gpu import GpuBackend
from schemas.attestation import ExamAnswer
from tests.kernels.emulator.emulated_gpu import EmulatedGpu

EPOCH, CHALLENGE, MINER, UUID = "11" * 32, "22" * 32, "U" + "A" * 55, "GPU-1"


def test_walks_and_roots_are_those_of_the_reference(gpu: EmulatedGpu) -> None:
    """A MiB filled and walked on the device gives the leaves, roots and opening of the reference, and is shown."""
    device = memory_on(GpuBackend(gpu), EPOCH, MINER, UUID, 1)
    reference = HostMemory(fill_seed(EPOCH, MINER, UUID), 1)
    reference.fill()
    fill = Fill(device, 1)
    root = fill.work()
    assert list(device.leaves(100, 3)) == list(reference.leaves(100, 3))
    assert device.root(5, 7) == reference.root(5, 7)
    answer = ExamAnswer(gpu=UUID, rows=1, root="00" * 32, memory_mib=1, memory_root=root)
    assert filled_mib(EPOCH, MINER, answer, CHALLENGE, fill.open(CHALLENGE)) == 1
    assert isinstance(memory_on(CpuBackend(), EPOCH, MINER, UUID, 1), HostMemory)
