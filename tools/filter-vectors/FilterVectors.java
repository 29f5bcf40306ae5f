import java.io.PrintStream;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.apache.rocketmq.filter.expression.BooleanExpression;
import org.apache.rocketmq.filter.expression.EvaluationContext;
import org.apache.rocketmq.filter.expression.MQFilterException;
import org.apache.rocketmq.filter.parser.SelectorParser;

/**
 * Writes what RocketMQ's own filter says of generated expressions, as vectors for ringmq-filter's tests.
 * Arguments: number of expressions, seed.
 */
public class FilterVectors {
    private static final String[] PROPERTIES = {
        "",
        "a=5;b=x;t=true;d=5.5;e= 7 ;$_n=-3",
        "a=-2147483648;b=5;t=FALSE;d=1e3;long=9223372036854775807",
        "a=2147483648;b=it's;t=TRUE;d=NaN;long=-1;c=\u4e2d\u6587",
        "a=05;b=5.0;d=0x1.8p1;e=;t=yes;long=+12",
        "a=0;b=-0.0;d=0.0;c=xx;t=x;long=99999999999999999999",
        "a=5d;b=Infinity;d=-Infinity;c=XX;t=false;e=5 ",
    };
    private static final String[] NAMES = {"a", "b", "c", "d", "e", "t", "long", "none", "$_n", "A"};
    private static final String[] NUMBERS = {
        "0", "1", "5", "-3", "7", "2147483647", "2147483648", "5L", "12l", "9223372036854775807", "5.5", "5.", ".5",
        "5E0", "1e3", "3.0", "1E400", "0.0", "05", "9223372036854775808", "5e", "1e-400", "4.9E-324", "1.5E10",
    };
    private static final String[] TEXTS = {
        "'x'", "'5'", "''", "'it''s'", "'true'", "'5.5'", "'xx'", "'\u4e2d'", "'z'", "' 7 '", "'-3'", "'NaN'", "'X'",
    };
    private static final String[] TOKENS = {
        "(", ")", ",", "=", "<>", "<", ">", "<=", ">=", "+", "-", "NOT", "AND", "OR", "BETWEEN", "IN", "IS", "NULL",
        "TRUE", "FALSE", "CONTAINS", "STARTSWITH", "ENDSWITH", "a", "b", "5", "5.5", "'x'", "/* c */", "-- c\n", "#",
        "!", "\"", "'open", "/", "/* open", ".", "is", "Not", "\t", "\n", "\u4e2d", "--",
    };

    private final Random random;

    FilterVectors(long seed) {
        random = new Random(seed);
    }

    public static void main(String[] args) throws Exception {
        int count = Integer.parseInt(args[0]);
        FilterVectors vectors = new FilterVectors(Long.parseLong(args[1]));
        PrintStream out = new PrintStream(System.out, false, "UTF-8");
        List<Map<String, String>> messages = new ArrayList<>();
        for (String properties : PROPERTIES) {
            out.println("P " + properties);
            messages.add(parse(properties));
        }
        for (int i = 0; i < count; i++) {
            String expression = vectors.expression();
            out.println("E " + escape(expression));
            out.println(escape(verdict(expression, messages)));
        }
        out.flush();
    }

    private static Map<String, String> parse(String text) {
        Map<String, String> properties = new LinkedHashMap<>();
        for (String pair : text.split(";")) {
            int at = pair.indexOf('=');
            if (at > 0 && at + 1 < pair.length()) {
                properties.put(pair.substring(0, at), pair.substring(at + 1));
            }
        }
        return properties;
    }

    /** One letter for each message, or the error. */
    private static String verdict(String text, List<Map<String, String>> messages) {
        BooleanExpression expression;
        try {
            expression = SelectorParser.parse(text);
        } catch (MQFilterException e) {
            // Which tokens would have been right is left out: it says more of the generated parser than of the text.
            return "! " + e.getMessage().replaceFirst("(?s)\nWas expecting.*", "");
        }
        StringBuilder verdicts = new StringBuilder("= ");
        for (Map<String, String> message : messages) {
            verdicts.append(evaluate(expression, message));
        }
        return verdicts.toString();
    }

    private static char evaluate(BooleanExpression expression, Map<String, String> message) {
        try {
            Object value = expression.evaluate(new EvaluationContext() {
                @Override
                public Object get(String name) {
                    return message.get(name);
                }

                @Override
                public Map<String, Object> keyValues() {
                    return new LinkedHashMap<>(message);
                }
            });
            if (value instanceof Boolean) {
                return (Boolean) value ? 'T' : 'F';
            }
            return 'N';
        } catch (Throwable e) {
            return 'X';
        }
    }

    private static String escape(String text) {
        return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t");
    }

    private String expression() {
        switch (random.nextInt(10)) {
            case 0:
                return soup();
            case 1:
                return mutated(or(3));
            case 2:
            case 3:
                return or(4);
            default:
                return sane(3);
        }
    }

    /** Mostly what Java compiles. */
    private String sane(int depth) {
        StringBuilder text = new StringBuilder(leaf(depth));
        while (random.nextInt(3) == 0) {
            text.append(pick(" AND ", " or ", " OR ")).append(random.nextInt(4) == 0 ? "NOT " : "").append(leaf(depth));
        }
        return text.toString();
    }

    private String leaf(int depth) {
        String name = pick(NAMES);
        String not = random.nextInt(3) == 0 ? " NOT" : "";
        switch (random.nextInt(depth > 0 ? 11 : 9)) {
            case 0:
                return name + pick(" > ", " >= ", " < ", " <= ") + number();
            case 1:
                return number() + pick(" > ", " >= ", " < ", " <= ") + name;
            case 2:
                return name + pick(" = ", " <> ") + (random.nextBoolean() ? number() : pick(TEXTS));
            case 3:
                return name + pick(" = ", " <> ", " > ", "<=") + pick(NAMES);
            case 4:
                return name + not + " BETWEEN " + pick("-5", "0", "name", "1.5", "-.5") + " AND " + number();
            case 5:
                return inList(name, not);
            case 6:
                return name + " IS" + not + " NULL";
            case 7:
                return name + not + pick(" CONTAINS ", " STARTSWITH ", " ENDSWITH ") + pick(TEXTS);
            case 8:
                return pick("TRUE", "false", name, "NULL") + pick(" ", " = " + pick("TRUE", "FALSE", name));
            default:
                return pick("NOT ", "") + "(" + sane(depth - 1) + ")" + pick("", " = TRUE", " <> t", " IS NULL");
        }
    }

    private String number() {
        return pick("0", "5", "-5", "5.0", "-0.5", "7L", "2147483648", "1E3", "-9223372036854775807", "5.5");
    }

    private String soup() {
        StringBuilder text = new StringBuilder();
        for (int i = 1 + random.nextInt(9); i > 0; i--) {
            text.append(pick(TOKENS)).append(random.nextInt(6) == 0 ? "" : " ");
        }
        return text.toString();
    }

    private String mutated(String text) {
        int at = random.nextInt(text.length() + 1);
        switch (random.nextInt(3)) {
            case 0:
                return text.substring(0, at);
            case 1:
                return text.substring(0, at) + pick(TOKENS) + text.substring(at);
            default:
                return text.substring(0, at) + text.substring(Math.min(text.length(), at + 1 + random.nextInt(4)));
        }
    }

    private String or(int depth) {
        return joined(depth, " OR ", this::and);
    }

    private String and(int depth) {
        return joined(depth, " and ", this::equality);
    }

    private String joined(int depth, String word, java.util.function.IntFunction<String> part) {
        StringBuilder text = new StringBuilder(part.apply(depth));
        while (depth > 0 && random.nextInt(4) == 0) {
            text.append(word).append(part.apply(depth - 1));
        }
        return text.toString();
    }

    private String equality(int depth) {
        switch (random.nextInt(6)) {
            case 0:
                return comparison(depth) + " IS NULL";
            case 1:
                return comparison(depth) + " IS NOT NULL";
            case 2:
                return comparison(depth) + pick(" = ", "=", " <> ") + comparison(depth);
            default:
                return comparison(depth);
        }
    }

    private String comparison(int depth) {
        String not = random.nextInt(3) == 0 ? " NOT" : "";
        switch (random.nextInt(8)) {
            case 0:
            case 1:
                return unary(depth) + pick(" > ", " >= ", "<", " <= ") + unary(depth);
            case 2:
                return unary(depth) + not + pick(" BETWEEN ", " between ") + unary(0) + " AND " + unary(0);
            case 3:
                return unary(depth) + not + pick(" CONTAINS ", " STARTSWITH ", " ENDSWITH ") + pick(TEXTS);
            case 4:
                return inList(unary(0), not);
            default:
                return unary(depth);
        }
    }

    private String inList(String operand, String not) {
        StringBuilder text = new StringBuilder(operand).append(not).append(" IN (").append(pick(TEXTS));
        for (int i = random.nextInt(6); i > 0; i--) {
            text.append(", ").append(pick(TEXTS));
        }
        return text.append(")").toString();
    }

    private String unary(int depth) {
        switch (random.nextInt(10)) {
            case 0:
                return "-" + (random.nextInt(5) == 0 ? " -" : "") + primary(depth);
            case 1:
                return "+" + primary(depth);
            case 2:
                return "NOT " + primary(depth);
            default:
                return primary(depth);
        }
    }

    private String primary(int depth) {
        switch (random.nextInt(depth > 0 ? 10 : 8)) {
            case 0:
            case 1:
                return pick(NUMBERS);
            case 2:
                return pick(TEXTS);
            case 3:
                return pick("TRUE", "FALSE", "NULL", "true");
            case 8:
            case 9:
                return "(" + or(depth - 1) + ")";
            default:
                return pick(NAMES);
        }
    }

    private String pick(String... choices) {
        return choices[random.nextInt(choices.length)];
    }
}
