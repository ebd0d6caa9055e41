"""A GPU of which only shapes exist: tensors on the host are real, those on `cuda` have no values.

PyTorch's FakeTensorMode computes the shape, type and device of every result, so the program runs as it would on a GPU
and a mixture of devices is an error. What comes back to the host is zero. `--device meta` is no substitute: it takes
mixed devices in silence.
"""

import contextlib
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
import torch._dynamo  # before the patches below, which it would find strange
import torch.nn as nn
import torch.optim.optimizer as optimizers
import torch.utils._foreach_utils as foreach
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.flop_counter import flop_registry

ROOT = Path(__file__).resolve().parents[2]
CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
NO_KERNEL = {aten.empty.memory_format, aten.empty_strided.default, aten.empty_like.default, aten.detach.default,
             aten.lift_fresh.default, aten._unsafe_view.default}


class HostIndex(RuntimeError):
    """A tensor on the GPU is indexed with one on the host: PyTorch would move it in silence, and wait."""


class Shapes(FakeTensorMode):
    """C++ takes the device of a fake tensor to be `meta` (see fake_cuda), and makes new tensors there."""

    def dispatch(self, func, types, args=(), kwargs=None):
        return super().dispatch(func, types, args, on_cuda_for_meta(kwargs))


def on_cuda_for_meta(kwargs: dict | None) -> dict:
    kwargs = dict(kwargs or {})
    if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "meta":
        kwargs["device"] = CUDA
    return kwargs


SHAPES = Shapes()                     # one for all runs: caches of the program hold tensors longer than a run


class Autocast(TorchFunctionMode):
    """torch.autocast("cuda") of what our networks use: C++ casts only what it takes to be on a GPU."""

    FUNCTIONS = (torch.conv2d, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.einsum)

    def __init__(self):
        super().__init__()
        self.weights: dict[int, torch.Tensor] = {}               # cast once while autocast is on

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.FUNCTIONS and torch.is_autocast_enabled("cuda"):
            args, kwargs = tree_map_only(FakeTensor, self.cast, (args, kwargs))
        return func(*args, **(kwargs or {}))

    def cast(self, x: FakeTensor) -> torch.Tensor:
        dtype = torch.get_autocast_dtype("cuda")
        if x.dtype not in (torch.float32, torch.float16, torch.bfloat16) or x.dtype == dtype:
            return x
        if not (x.is_leaf and x.requires_grad):
            return x.to(dtype)
        if id(x) not in self.weights:
            self.weights[id(x)] = x.to(dtype)
        return self.weights[id(x)]


class FakeCuda(TorchDispatchMode):
    """While it is entered, operations on `cuda` yield shapes and are counted.

    operations   those that start kernels
    bytes        that they read and write, every argument and result once
    flops        of convolutions and matrix products, a multiply-add counted as 2
    held         bytes of the tensors that are alive; peak: their maximum
    waits        place in this repository -> copies and reads there that make the host wait for the GPU
    """

    def __init__(self):
        super().__init__()
        self.shapes = SHAPES
        self.operations = self.bytes = self.flops = self.held = self.peak = 0
        self.waits: Counter[str] = Counter()
        self.known = weakref.WeakSet()                           # storages that `held` counts
        self.pinned = weakref.WeakSet()                          # storages on the host that copies need not wait for

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = on_cuda_for_meta(kwargs)
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        fakes = [x for x in tensors if isinstance(x, FakeTensor)]
        target = kwargs.get("device")
        to_cuda = target is not None and torch.device(target).type == "cuda"
        if not fakes and not to_cuda:
            return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            self.wait()
            return torch.zeros((), dtype=args[0].dtype).item()
        if func is aten._to_copy.default and target is not None and to_cuda != bool(fakes):
            return self.upload(args[0], kwargs) if to_cuda else self.download(args[0], kwargs)
        if func is aten.copy_.default and len(fakes) == 1:
            return self.copy_between(*args)
        if func in INDEXING and any(x.dim() and not isinstance(x, FakeTensor) for x in tensors):
            raise HostIndex(f"{func} of {args[0].device} with an index on the host")
        return self.launch(func, args, kwargs)

    def launch(self, func, args, kwargs):
        """The result of an operation on the GPU; FakeTensorMode complains of mixed devices."""
        args, kwargs = tree_map_only(torch.Tensor, self.as_fake, (args, kwargs))
        with self.shapes:
            result = func(*args, **kwargs)
        made = [x for x in tree_flatten(result)[0] if isinstance(x, FakeTensor)]
        self.hold(made)
        if not func.is_view and func not in NO_KERNEL:
            self.operations += 1
            read = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, FakeTensor)]
            self.bytes += sum(x.numel() * x.element_size() for x in (*read, *made))
            if func.overloadpacket in flop_registry:
                self.flops += flop_registry[func.overloadpacket](*args, **kwargs, out_val=result)
        return result

    def as_fake(self, x: torch.Tensor) -> FakeTensor:
        return x if isinstance(x, FakeTensor) else self.shapes.from_tensor(x)

    def on_cuda(self, x: torch.Tensor, dtype=None) -> FakeTensor:
        """Shape of a tensor of the host, on the GPU."""
        with self.shapes:
            copy = torch.empty_strided(x.shape, x.stride(), dtype=dtype or x.dtype, device=CUDA)
        self.hold([copy])
        return copy

    def hold(self, made: list[FakeTensor]) -> None:
        for x in made:
            storage = x.untyped_storage()
            if storage not in self.known:
                self.known.add(storage)
                self.held += storage.nbytes()
                weakref.finalize(storage, self.release, storage.nbytes())
        self.peak = max(self.peak, self.held)

    def release(self, size: int) -> None:
        self.held -= size

    # --- between host and GPU -----------------------------------------------------------------------------------

    def upload(self, x, kwargs):
        if not (kwargs.get("non_blocking") and x.untyped_storage() in self.pinned):
            self.wait()
        return self.on_cuda(x, kwargs.get("dtype"))

    def download(self, x, kwargs):
        self.wait()
        return torch.zeros(x.shape, dtype=kwargs.get("dtype") or x.dtype)

    def copy_between(self, to, source, non_blocking=False):
        if isinstance(to, FakeTensor):
            if not (non_blocking and source.untyped_storage() in self.pinned):
                self.wait()
            return to
        self.wait()
        return to.zero_()

    def pin(self, x):
        self.pinned.add(x.untyped_storage())
        return x

    def wait(self) -> None:
        frame = sys._getframe(1)
        while not is_ours(frame.f_code):
            frame = frame.f_back
        self.waits[f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_code.co_name}"] += 1


def is_ours(code) -> bool:
    """Whether it is a function of the program under test."""
    path = Path(code.co_filename)
    return ROOT in path.parents and path.relative_to(ROOT).parts[0] not in ("tests", ".venv") and code.co_name[0] != "<"


def save_on_host(save, content, *args):
    """torch.save, which copies what is on the GPU."""
    save(tree_map_only(FakeTensor, lambda x: x.cpu(), content), *args)


@contextlib.contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """A machine with one such GPU."""
    gpu, autocast, make, save = FakeCuda(), Autocast(), torch.Tensor._make_subclass, torch.save

    def make_on_meta(cls, data, requires_grad=False, **kwargs):
        # For C++ the tensors stay on `meta`: the autograd engine would ask for streams and contexts of a real GPU.
        return make(cls, data, requires_grad, **(kwargs | {"dispatch_device": False}))

    with contextlib.ExitStack() as stack:
        def patch(target, name, value):
            stack.enter_context(mock.patch.object(target, name, value))

        patch(torch.Tensor, "_make_subclass", make_on_meta)
        patch(torch.Tensor, "pin_memory", lambda x, *_: gpu.pin(x))
        patch(torch.Tensor, "is_pinned", lambda x, *_: x.untyped_storage() in gpu.pinned)
        patch(torch.cuda, "is_available", lambda: True)
        patch(torch.cuda, "is_bf16_supported", lambda *_: True)
        patch(torch.cuda, "_lazy_init", lambda: None)
        patch(torch.cuda, "set_device", lambda _: None)
        patch(torch.cuda, "get_device_name", lambda *_: "shapes alone")
        patch(torch.accelerator, "is_available", lambda: True)
        patch(foreach, "_foreach_supported_types", [torch.Tensor, FakeTensor])
        patch(optimizers, "_foreach_supported_types", [torch.Tensor, nn.Parameter, FakeTensor])
        patch(torch, "save", lambda content, *args: save_on_host(save, content, *args))
        torch._C._ensureCUDADeviceGuardSet()                  # no driver is asked which device is current
        torch._C._set_only_lift_cpu_tensors(True)             # torch.tensor(..., device="cuda") is a copy that we see
        patch(torch, "clear_autocast_cache", autocast.weights.clear)
        with gpu, autocast:
            yield gpu
        torch._C._set_only_lift_cpu_tensors(False)
