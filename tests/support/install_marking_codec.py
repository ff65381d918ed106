"""Installs the codec that marks, in a process that imports this."""

from dspyq.core import runtime
from dspyq.store.content import process_codec
from tests.support.marking_codec import MarkingCodec

runtime.current().put(process_codec, MarkingCodec())
