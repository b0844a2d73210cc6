"""PyTorch tensors, on the CPU and on CUDA devices, on the current stream. The one file that imports torch."""

from __future__ import annotations

from typing import Any, Optional

import torch

from ._frameworks import DLPACK_CPU, DLPACK_CUDA, Framework


class TorchFramework(Framework):
    name = "torch"
    direct = True
    int32, float32, bfloat16, float16 = torch.int32, torch.float32, torch.bfloat16, torch.float16
    # Since 2.10, or with torch-c-dlpack-ext, the library asks PyTorch's allocator itself.
    lends_memory = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Any, stream: Optional[int] = None) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    def device_of(self, array: torch.Tensor) -> torch.device:
        return array.device

    def dlpack_device(self, device: Any) -> tuple[int, int]:
        device = torch.device(device)
        if device.type == "cpu":
            return (DLPACK_CPU, 0)
        if device.type != "cuda":
            raise TypeError(f"device is {device}; expected cpu or cuda")
        return (DLPACK_CUDA, torch.cuda.current_device() if device.index is None else device.index)

    def stream(self, stream: Optional[int]) -> int:
        if stream is not None:
            raise ValueError("stream is given; PyTorch tensors use the current stream, see torch.cuda.stream")
        return super().stream(None)

    def wrap(self, tensor: Any) -> torch.Tensor:
        return torch.from_dlpack(tensor)

    def scratch(self, plan: Any, device: torch.device, stream: int) -> Optional[torch.Tensor]:
        if self.lends_memory or device.type == "cpu":
            return None
        return torch.empty(plan.scratch_bytes, dtype=torch.uint8, device=device)

    def stack(self, arrays: list[Any]) -> torch.Tensor:
        return torch.stack(arrays)

    def from_host(self, array: Any, device: Any) -> torch.Tensor:
        return torch.from_numpy(array).to(device)


def make(name: str) -> TorchFramework:
    return TorchFramework()
