"""Losses: what training minimises. One of your own is a module here and a YAML file in conf/task/loss/."""

from fedapp.learning.losses.loss import Loss

__all__ = ["Loss"]
