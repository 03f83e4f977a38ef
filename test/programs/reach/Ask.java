// The client of ask.c in Java.
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.net.UnknownHostException;
import java.util.ArrayList;
import java.util.List;

public final class Ask {
  static final int PATIENCE_MS = 2000;
  static double lookup, connect;
  static final List<Double> exchanges = new ArrayList<>();
  static String stage = "lookup", text = "";

  static double since(long start) {
    return (System.nanoTime() - start) / 1e6;
  }

  static String named(Exception error) {
    final String message = String.valueOf(error.getMessage());
    if (error instanceof UnknownHostException) return "ENOTFOUND";
    if (error instanceof SocketTimeoutException) return "ETIMEDOUT";
    if (message.contains("refused")) return "ECONNREFUSED";
    if (message.contains("reset")) return "ECONNRESET";
    if (message.contains("No route to host")) return "EHOSTUNREACH";
    if (message.contains("Broken pipe")) return "EPIPE";
    return message;
  }

  static void ask(String[] given) throws Exception {
    long start = System.nanoTime();
    final InetAddress address = InetAddress.getByName(given[0]);
    lookup = since(start);
    stage = "connect";
    try (Socket socket = new Socket()) {
      socket.setSoTimeout(PATIENCE_MS);
      start = System.nanoTime();
      try {
        socket.connect(new InetSocketAddress(address, Integer.parseInt(given[1])), PATIENCE_MS);
      } finally {
        connect = since(start);
      }
      stage = "exchange";
      final byte[] bytes = new byte[Integer.parseInt(given[3])];
      for (int i = 0; i < Integer.parseInt(given[2]); i++) {
        for (int at = 0; at < bytes.length; at++) bytes[at] = (byte) ('0' + at % 10);
        start = System.nanoTime();
        socket.getOutputStream().write(bytes);
        for (int got = 0; got < bytes.length;) {
          final int n = socket.getInputStream().read(bytes, got, bytes.length - got);
          if (n < 0) throw new Exception("EOF");
          got += n;
        }
        text = new String(bytes, 0, Math.min(10, bytes.length), "US-ASCII");
        exchanges.add(since(start));
      }
    }
    stage = "";
  }

  public static void main(String[] given) {
    String failed = "";
    try {
      ask(given);
    } catch (Exception error) {
      failed = ",\"stage\":\"" + stage + "\",\"error\":\"" + named(error) + "\"";
    }
    System.out.println("{\"lookup\":" + lookup + ",\"connect\":" + connect + ",\"exchanges\":" + exchanges + ",\"text\":\"" + text + "\"" + failed + "}");
  }
}
