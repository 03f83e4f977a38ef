// Fetches a URL with HttpURLConnection on Java's default stack, IPv6 sockets with IPv4-mapped addresses; says the body,
// or what went wrong, and how long it took.
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;

public final class UrlClient {
  public static void main(String[] args) {
    long start = System.nanoTime();
    int status = 0;
    try (InputStream body = URI.create(args[0]).toURL().openConnection().getInputStream()) {
      System.out.print(new String(body.readAllBytes()));
      System.out.flush();
    } catch (IOException error) {
      System.err.println(error);
      status = 1;
    }
    System.err.println("elapsed_s=" + (System.nanoTime() - start) / 1e9);
    System.exit(status);
  }
}
