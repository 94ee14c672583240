"""Exchange with other libraries: ONNX files (`xpnet.interop.onnx`) and PyTorch's weights (`xpnet.interop.torch`)."""
