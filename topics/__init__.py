"""The Kafka topics, one frozen :class:`topics.catalogue.TopicSpec` each."""
