"""Kinds of task. One of your own is a module here and a YAML file in conf/task/kind/."""
