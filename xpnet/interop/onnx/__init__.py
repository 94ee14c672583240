"""ONNX files of networks, for onnxruntime and other programs. Needs ``xpnet[onnx]``.

`export` writes a file. `converter` declares the conversion of a custom layer::

    @converter(Scale)
    def scale(graph, layer, x):
        return graph.op("Mul", x, graph.array(layer, "s"))
"""

from xpnet.interop.onnx import layers, sequences  # noqa: F401 - they declare the converters
from xpnet.interop.onnx.builder import GraphBuilder, converter
from xpnet.interop.onnx.model import IR_VERSION, OPSET, export

__all__ = ["IR_VERSION", "OPSET", "GraphBuilder", "converter", "export"]
