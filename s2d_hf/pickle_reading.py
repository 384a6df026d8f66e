"""
Pickles as data: what a file of `torch.save` says about tensors, without calling or importing anything that it names.

`pickle` builds objects by calling what the file names, which can run any code. Here the file's opcodes are followed by
hand. Numbers, strings, lists, tuples and dictionaries come out as they are, and tensors as a description of where
their values lie. Tensors of kinds that no checkpoint of a model needs come out as [`UNREADABLE`], and everything else
(arguments, paths, NumPy scalars, classes of any kind) as [`PASSED_OVER`].
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Any, BinaryIO, cast

import torch

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_TENSOR_BUILDERS = ("_rebuild_tensor", "_rebuild_tensor_v2")
_PARAMETER_BUILDERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")


@dataclass(frozen=True)
class Storage:
    """Where in the file values lie: under `key`, `numel` of them."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as the file describes it: a view, in elements, of a storage. Nothing of it has been checked."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    """The name of a class or function. It is never looked up."""

    module: str
    name: str


class _Marker:
    """What stands in the place of something that is not built."""


PASSED_OVER = _Marker()
UNREADABLE = _Marker()


def read_pickle(file: BinaryIO | mmap) -> tuple[Any, dict[str, Storage]]:
    """
    Reads one pickle, and leaves the file behind it.

    Args:
        file (`BinaryIO`): A binary file in memory (`BytesIO`, `mmap`), so that a wrong length can't ask for more
            memory than there are bytes.

    Returns:
        its object, of numbers, strings, `list`, `tuple`, `dict` (also for an `OrderedDict`), [`TensorRecord`] and
        [`PASSED_OVER`] and [`UNREADABLE`]; and all storages that it names, by their keys.

    Raises:
        ValueError: if it is no pickle, or a damaged one.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(cast(BinaryIO, file)):
            if opcode.name == "STOP":
                return machine.stack.pop(), machine.storages
            machine.follow(opcode.name, argument)
    # what the bytes of a damaged file may lead to
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise ValueError(f"its pickle is damaged ({type(error).__name__})") from error
    raise ValueError("its pickle is cut off")


class _Machine:
    """The stack and the memo of a pickle; see Python's `pickletools` for what each opcode does."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def follow(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _TUPLES:
            count = _TUPLES[name]
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME"):
            handler = getattr(self, f"_{name.lower()}", None)
            if handler is None:
                raise ValueError(f"unknown opcode {name}")
            handler(argument)

    def _memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _mark(self, _: None) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _pop_mark(self, _: None = None) -> list[Any]:
        """What was put on the stack since the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _pop(self, _: None) -> None:
        # on an empty stack, the mark itself
        if self.stack:
            self.stack.pop()
        else:
            self._pop_mark()

    def _dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def _tuple(self, _: None) -> None:
        self._push_items(tuple)

    def _list(self, _: None) -> None:
        self._push_items(list)

    def _dict(self, _: None) -> None:
        self._push_items(lambda items: _set_items({}, items))

    def _frozenset(self, _: None) -> None:
        self._push_items(lambda items: PASSED_OVER)

    def _push_items(self, make: Callable[[list[Any]], Any]) -> None:
        items = self._pop_mark()
        self.stack.append(make(items))

    def _append(self, _: None) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: None) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set_items(self.stack[-1], [key, value])

    def _setitems(self, _: None) -> None:
        items = self._pop_mark()
        _set_items(self.stack[-1], items)

    def _additems(self, _: None) -> None:
        self._pop_mark()

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(_Global(module, name))

    def _stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        is_named = isinstance(module, str) and isinstance(name, str)
        self.stack.append(_Global(module, name) if is_named else PASSED_OVER)

    def _ext1(self, _: int) -> None:
        self.stack.append(PASSED_OVER)

    _ext2 = _ext4 = _ext1

    def _reduce(self, _: None) -> None:
        arguments, named = self.stack.pop(), self.stack.pop()
        self.stack.append(_describe_call(named, arguments))

    _newobj = _reduce

    def _newobj_ex(self, _: None) -> None:
        self.stack.pop()
        self._reduce(None)

    def _obj(self, _: None) -> None:
        self._push_items(lambda items: PASSED_OVER)

    _inst = _obj

    def _build(self, _: None) -> None:
        # attributes, such as the `_metadata` of a state dict
        self.stack.pop()

    def _persid(self, _: str) -> None:
        self.stack.append(PASSED_OVER)

    def _binpersid(self, _: None) -> None:
        storage = _describe_storage(self.stack.pop())
        if isinstance(storage, Storage) and self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError("one part in two forms")
        self.stack.append(storage)

    def _readonly_buffer(self, _: None) -> None:
        pass


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: PASSED_OVER,
    "NEXT_BUFFER": lambda: PASSED_OVER,
}
_LITERALS = frozenset(
    """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE
    SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    """.split()  # noqa: SIM905
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _set_items(target: Any, items: list[Any]) -> Any:
    """Pairs of keys and values into a dictionary; keys that are no names or numbers are passed over."""
    if isinstance(target, dict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            # the hash of a tuple can take for ever, and those of large numbers can be all the same
            if isinstance(key, str) or (isinstance(key, int) and key.bit_length() <= 32):
                target[key] = value
    return target


def _describe_call(named: Any, arguments: Any) -> Any:
    """What a call would have built, if that is a container or a tensor."""
    if not isinstance(named, _Global) or not isinstance(arguments, tuple):
        return PASSED_OVER
    if named in (_Global("collections", "OrderedDict"), _Global("collections", "defaultdict")):
        # once pickled with its items as a list of pairs
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        return _set_items({}, [item for key, value in pairs for item in (key, value)])
    if named.module == "torch._utils" and named.name in _TENSOR_BUILDERS:
        storage, offset, size, stride = arguments[:4]
        is_described = isinstance(storage, Storage) and isinstance(size, tuple) and isinstance(stride, tuple)
        is_changed = any(arguments[6:])  # negated or conjugated when it is read
        return TensorRecord(storage, offset, size, stride) if is_described and not is_changed else UNREADABLE
    if named.module == "torch._utils" and named.name in _PARAMETER_BUILDERS:
        return arguments[0]
    if named == _Global("torch._tensor", "_rebuild_from_type_v2"):  # with attributes of its own
        return _describe_call(arguments[0], arguments[2])
    return UNREADABLE if named.module.startswith("torch") and "rebuild" in named.name else PASSED_OVER


def _describe_storage(identity: Any) -> Any:
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        return PASSED_OVER
    kind, key, _, numel, *view = identity[1:]
    if not isinstance(key, str):
        return PASSED_OVER
    dtype = _DTYPES.get(kind.name) if isinstance(kind, _Global) and kind.module == "torch" else None
    # a view of another storage, which no PyTorch has written since 2017
    if dtype is None or view not in ([], [None]):
        return PASSED_OVER
    return Storage(key, dtype, numel)


__all__ = ["PASSED_OVER", "UNREADABLE", "Storage", "TensorRecord", "read_pickle"]
