"""Metrics of few-shot segmentation: accumulated IoU per class, mIoU and FB-IoU."""
