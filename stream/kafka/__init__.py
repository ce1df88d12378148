"""Speaking to Kafka: the batch transport for Faust, clients, topics."""
