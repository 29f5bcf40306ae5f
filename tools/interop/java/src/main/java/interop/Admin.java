package interop;

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * Runs mqadmin commands, one a line of standard input with its arguments separated by tabs, in one JVM, and prints for
 * each what the command printed.
 */
public final class Admin {
    private Admin() { }

    public static void main(String[] argv) {
        Report.main(Admin::scenario);
    }

    private static void scenario() throws Exception {
        Report.event("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            ByteArrayOutputStream output = new ByteArrayOutputStream();
            PrintStream captured = new PrintStream(output, true, StandardCharsets.UTF_8);
            PrintStream out = System.out;
            PrintStream err = System.err;
            System.setOut(captured);
            System.setErr(captured);
            try {
                MQAdminStartup.main0(line.split("\t"), null);
            } finally {
                System.setOut(out);
                System.setErr(err);
            }
            Report.event("output", "text", output.toString(StandardCharsets.UTF_8));
        }
    }
}
