"""Label Studio's ML backend below `/label-studio`: regions for the images of its tasks; docs/label-studio.md."""
