import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerInterceptor;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.Stores;

/**
 * The smaller job in Kafka Streams: an aggregation a key, its store logged to a changelog topic.
 *
 * <p>Arguments: {@code rocksdb} or {@code memory}, then the job as JSON. It is folded twice in one
 * process: first a part of it under another name, so that the measured run finds compiled code.
 */
public final class StreamsPeer {
    private static final int WARM_UP = 300_000;

    /** The job as the bench gives it; see shared/small_job.py. */
    record Job(
            String broker, String topic, String name, int events, int partitions, String directory) {}

    /** What is read of an attempt. */
    record Attempt(boolean correct) {}

    /** A learner: attempts, correct ones, theta (logits), its variance. */
    record Row(int attempts, int correct, double theta, double variance) {
        static final Row PRIOR = new Row(0, 0, 0.0, 1.0);

        Row updated(boolean right) {
            double p = 1.0 / (1.0 + Math.exp(-theta));
            double v = 1.0 / (1.0 / variance + p * (1.0 - p));
            int one = right ? 1 : 0;
            return new Row(attempts + 1, correct + one, theta + v * (one - p), v);
        }

        static byte[] encode(Row row) {
            return row == null
                    ? null
                    : ByteBuffer.allocate(24)
                            .putInt(row.attempts)
                            .putInt(row.correct)
                            .putDouble(row.theta)
                            .putDouble(row.variance)
                            .array();
        }

        static Row decode(byte[] bytes) {
            if (bytes == null) {
                return null;
            }
            ByteBuffer in = ByteBuffer.wrap(bytes);
            return new Row(in.getInt(), in.getInt(), in.getDouble(), in.getDouble());
        }
    }

    private static final ObjectMapper JSON =
            new ObjectMapper().disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES);
    private static final ObjectReader ATTEMPT = JSON.readerFor(Attempt.class);

    /** The run that is under way; its consumer is made by name and cannot be handed it. */
    private static volatile StreamsPeer current;

    private final String store;
    private final Job job;
    private final boolean measured;
    private final CountDownLatch durable = new CountDownLatch(1);
    private final long wanted;
    private final Map<TopicPartition, Long> committed = new ConcurrentHashMap<>();
    private long seen;
    private double thetaSum;

    private StreamsPeer(String store, Job job, int wanted, boolean measured) {
        this.store = store;
        this.job = job;
        this.wanted = wanted;
        this.measured = measured;
    }

    public static void main(String[] arguments) throws Exception {
        Job job = JSON.readValue(arguments[1], Job.class);
        new StreamsPeer(arguments[0], job, Math.min(WARM_UP, job.events), false).run();
        new StreamsPeer(arguments[0], job, job.events, true).run();
    }

    private void run() throws Exception {
        current = this;
        Properties config = new Properties();
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, job.name + (measured ? "" : "-warm-up"));
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.broker);
        config.put(StreamsConfig.STATE_DIR_CONFIG, job.directory);
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        config.put("auto.offset.reset", "earliest");
        config.put("main.consumer.interceptor.classes", CommitWatch.class.getName());
        try (KafkaStreams streams = new KafkaStreams(topology(), config)) {
            streams.setUncaughtExceptionHandler(
                    error -> {
                        error.printStackTrace();
                        Runtime.getRuntime().halt(1);
                        return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
                    });
            streams.start();
            durable.await();
            if (measured) {
                String sum = JSON.writeValueAsString(Map.of("theta_sum", thetaSum));
                System.out.println("\nend " + sum);
                System.in.readAllBytes();
            }
        }
    }

    private Topology topology() {
        var supplier =
                store.equals("rocksdb")
                        ? Stores.persistentKeyValueStore("learners")
                        : Stores.inMemoryKeyValueStore("learners");
        Serde<Row> rows =
                Serdes.serdeFrom((topic, row) -> Row.encode(row), (topic, b) -> Row.decode(b));
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(job.topic, Consumed.with(Serdes.String(), Serdes.ByteArray()))
                .processValues(Parse::new)
                .groupByKey()
                .aggregate(
                        () -> Row.PRIOR,
                        (user, attempt, row) -> fold(attempt, row),
                        Materialized.<String, Row>as(supplier)
                                .withKeySerde(Serdes.String())
                                .withValueSerde(rows));
        return builder.build();
    }

    private Row fold(Attempt attempt, Row row) {
        Row after = row.updated(attempt.correct);
        thetaSum += after.theta - row.theta;
        return after;
    }

    /** Parses, passes on, and after the last attempt asks for a commit: the default is 30 s. */
    private static final class Parse extends ContextualFixedKeyProcessor<String, byte[], Attempt> {
        private final StreamsPeer run = current;

        @Override
        public void process(FixedKeyRecord<String, byte[]> message) {
            if (run.seen++ == 0 && run.measured) {
                System.out.println("\nbegin");
            }
            try {
                context().forward(message.withValue(ATTEMPT.readValue(message.value())));
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            if (run.seen == run.wanted) {
                context().commit();
            }
        }
    }

    /** Sees the offsets committed, which happens after stores and changelog were flushed. */
    public static final class CommitWatch implements ConsumerInterceptor<byte[], byte[]> {
        @Override
        public void onCommit(Map<TopicPartition, OffsetAndMetadata> offsets) {
            StreamsPeer run = current;
            offsets.forEach((at, offset) -> run.committed.put(at, offset.offset()));
            if (run.committed.values().stream().mapToLong(Long::longValue).sum() >= run.wanted) {
                run.durable.countDown();
            }
        }

        @Override
        public ConsumerRecords<byte[], byte[]> onConsume(ConsumerRecords<byte[], byte[]> records) {
            return records;
        }

        @Override
        public void configure(Map<String, ?> config) {}

        @Override
        public void close() {}
    }
}
