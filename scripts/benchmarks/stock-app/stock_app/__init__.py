"""The benchmark's work as a stock Flower app, written as Flower's quickstart-pytorch is: nothing here is of fedapp."""
