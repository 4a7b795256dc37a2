"""Metrics: how good a model's outputs are. One of your own is a module here and a YAML file in conf/metric/."""

from fedapp.learning.metrics.by_name import choose
from fedapp.learning.metrics.metric import Metric, averaged, of_averages

__all__ = ["Metric", "averaged", "choose", "of_averages"]
