"""What `solo bench` measures our networks against: stock mmdet, and a straightforward ONNX export. Each is a process of its own."""
