"""The local stack: a real Kafka, a real PostgreSQL and the embedded calibrator, without root."""
