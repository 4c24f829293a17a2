import java.util.UUID;

/** A task, from asking who takes it to the bill. Prints every answer, one a line. */
public final class Example {
    private static final Beamline GATEWAY = Beamline.ofEnvironment();

    public static void main(String[] arguments) throws Exception {
        // Made once a task, and kept with it: this is what makes a repeat a repeat.
        String task = UUID.randomUUID().toString();
        String assignmentId = "\"assignment_id\": \"a-" + task + "\"";

        // Who takes it? With an assignment_id the decision is kept: asked again, it is the same.
        send("POST", "/api/v1/routes/decide", "{" + assignmentId + ", \"policy_id\": \"default\","
                + " \"task\": {\"type\": \"chat\", \"payload\": {\"text\": \"hello there\"}},"
                + " \"context\": {\"session_id\": \"s-" + task + "\"}}");

        // Give it to a worker, and wait for what becomes of it.
        send("POST", "/api/v1/assignments", "{" + assignmentId + ","
                + " \"executor\": {\"provider_id\": \"openai:gpt-4o\", \"channel\": \"nats\"},"
                + " \"job\": {\"type\": \"chat\", \"payload\": {\"text\": \"hello there\"}}}");
        send("GET", "/api/v1/results/a-" + task + "?wait_ms=20000", null);

        // Say that it was taken (workers on NATS do so themselves).
        send("POST", "/api/v1/acks", "{\"ack_id\": \"k-" + task + "\", " + assignmentId + ", \"status\": \"accepted\"}");

        // What it cost. The worker's result was metered already, so this one does not count again: "emitted" is false.
        send("POST", "/api/v1/usage", "{\"usage_id\": \"u-" + task + "\", " + assignmentId + ","
                + " \"provider_id\": \"openai:gpt-4o\", \"event_type\": \"chat\", \"latency_ms\": 850, \"cost\": 0.012,"
                + " \"status\": \"success\", \"timestamp\": " + System.currentTimeMillis() + "}");
    }

    private static void send(String method, String path, String body) throws Exception {
        Beamline.Answer answer = GATEWAY.send(method, path, body);
        if (!answer.ok()) {
            throw new IllegalStateException(answer.status + " " + answer.body);
        }
        System.out.println(answer.body);
    }
}
