"""The pure dispatcher: events and times in, effects out. See `broker.dispatch.dispatcher`."""
