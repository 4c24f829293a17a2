import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.ThreadLocalRandom;

/**
 * Sends requests to the gateway, again and again if need be, until they are settled. Java 8 and newer.
 *
 * <p>{@code java Beamline POST /api/v1/usage < event.json}
 *
 * <p>BEAMLINE_URL, BEAMLINE_KEY; BEAMLINE_PATIENCE_SECONDS (120) must stay below the gateway's IDEMPOTENCY_TTL_MS. Exit
 * code 0: done, the answer is on standard output. 1: refused, and asking again would not help; the answer is on standard
 * error. 3: not settled; whether it happened is not known, the same request later tells.
 */
public final class Beamline {

    /** A settled answer: a success or a refusal. */
    public static final class Answer {
        public final int status;
        public final String body;
        final String retryAfter;

        Answer(int status, String body, String retryAfter) {
            this.status = status;
            this.body = body;
            this.retryAfter = retryAfter;
        }

        public boolean ok() {
            return status >= 200 && status < 300;
        }

        boolean asksForAnother() {
            switch (status) {
                case 409: // in_progress names a time, idempotency_conflict does not
                    return retryAfter != null;
                case 408:
                case 429:
                case 500:
                case 502:
                case 503:
                case 504:
                    return true;
                default:
                    return false;
            }
        }

        long retryAfterMillis() {
            boolean seconds = retryAfter != null && retryAfter.matches("[0-9]{1,9}");
            return seconds ? Long.parseLong(retryAfter) * 1000 : 0;
        }
    }

    /** Whether it happened is not known. Keep the request; sending the same one again later tells. */
    public static final class NotSettledException extends Exception {
        private static final long serialVersionUID = 1;

        NotSettledException(String why) {
            super(why);
        }
    }

    private final String url;
    private final String key;
    private final long patienceMillis;

    public Beamline(String url, String key, double patienceSeconds) {
        this.url = url;
        this.key = key;
        this.patienceMillis = (long) (patienceSeconds * 1000);
    }

    /** {@code body} has an id of its own in it: every attempt sends the same one. Null for a GET. */
    public Answer send(String method, String path, String body) throws NotSettledException, InterruptedException {
        long giveUp = System.nanoTime() + patienceMillis * 1_000_000;
        long backoffMillis = 200;
        while (true) {
            long pauseMillis = 0;
            String why;
            try {
                Answer answer = attempt(method, path, body);
                if (!answer.asksForAnother()) {
                    return answer;
                }
                why = answer.status + " " + answer.body;
                pauseMillis = answer.retryAfterMillis();
            } catch (IOException error) {
                why = error.toString(); // refused, reset, cut off, too slow: nothing is known
            }

            // At least what the gateway asks for, and a random moment more, so that not everybody is back at once.
            pauseMillis += ThreadLocalRandom.current().nextLong(backoffMillis);
            backoffMillis = Math.min(backoffMillis * 2, 10_000);
            if (System.nanoTime() + pauseMillis * 1_000_000 - giveUp >= 0) {
                throw new NotSettledException(why);
            }
            System.err.println("again in " + pauseMillis + " ms: " + why);
            Thread.sleep(pauseMillis);
        }
    }

    private Answer attempt(String method, String path, String body) throws IOException {
        // Java repeats a POST by itself when a kept connection breaks; with an id in it that does no harm.
        HttpURLConnection connection = (HttpURLConnection) new URL(url + path).openConnection();
        connection.setRequestMethod(method);
        connection.setInstanceFollowRedirects(false);
        connection.setConnectTimeout(2_000);
        connection.setReadTimeout(method.equals("GET") ? 45_000 : 15_000); // a long poll takes up to 30 s
        connection.setRequestProperty("Authorization", "Bearer " + key);
        if (body != null) {
            connection.setDoOutput(true);
            connection.setRequestProperty("Content-Type", "application/json");
            try (OutputStream out = connection.getOutputStream()) {
                out.write(body.getBytes(StandardCharsets.UTF_8));
            }
        }
        int status = connection.getResponseCode();
        if (status < 0) {
            throw new IOException("not an HTTP answer");
        }
        // A refusal has a body, too, and getInputStream would throw.
        InputStream in = status < 400 ? connection.getInputStream() : connection.getErrorStream();
        byte[] bytes = in == null ? new byte[0] : read(in);
        if (bytes.length < connection.getContentLengthLong()) { // Java takes a broken connection for the end
            throw new IOException("the answer was cut off");
        }
        return new Answer(status, utf8(bytes), connection.getHeaderField("Retry-After"));
    }

    private static byte[] read(InputStream in) throws IOException {
        try (InputStream source = in) { // read to its end: then the connection is used again
            ByteArrayOutputStream all = new ByteArrayOutputStream();
            byte[] some = new byte[8192];
            for (int count; (count = source.read(some)) >= 0; ) {
                all.write(some, 0, count);
            }
            return all.toByteArray();
        }
    }

    private static String utf8(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    /** The gateway and the key of the environment. */
    static Beamline ofEnvironment() {
        String patience = System.getenv().getOrDefault("BEAMLINE_PATIENCE_SECONDS", "120");
        return new Beamline(
                System.getenv("BEAMLINE_URL"), System.getenv("BEAMLINE_KEY"), Double.parseDouble(patience));
    }

    public static void main(String[] arguments) throws Exception {
        String method = arguments[0];
        String body = method.equals("POST") ? utf8(read(System.in)) : null;
        try {
            Answer answer = ofEnvironment().send(method, arguments[1], body);
            (answer.ok() ? System.out : System.err).write(answer.body.getBytes(StandardCharsets.UTF_8));
            System.exit(answer.ok() ? 0 : 1);
        } catch (NotSettledException error) {
            System.err.println("not settled: " + error.getMessage());
            System.exit(3);
        }
    }
}
