// Java's HttpClient, which waits in a selector, on several connections at once, spread over a period: URL CONNECTIONS
// REQUESTS PERIOD_MS. Prints how long each request took, in ms.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.ArrayList;
import java.util.List;

public final class HttpRounds {
  public static void main(String[] args) throws InterruptedException {
    HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    HttpRequest request = HttpRequest.newBuilder(URI.create(args[0])).build();
    List<String> took = new ArrayList<>();
    List<Thread> threads = new ArrayList<>();
    int connections = Integer.parseInt(args[1]);
    for (int connection = 0; connection < connections; connection++) {
      Thread thread = new Thread(() -> converse(client, request, Integer.parseInt(args[2]), took));
      thread.start();
      threads.add(thread);
      Thread.sleep(Math.round(Double.parseDouble(args[3]) / connections));
    }
    for (Thread thread : threads) thread.join();
    System.out.println("[" + String.join(",", took) + "]");
  }

  private static void converse(HttpClient client, HttpRequest request, int requests, List<String> took) {
    try {
      for (int i = 0; i < requests; i++) {
        long start = System.nanoTime();
        client.send(request, BodyHandlers.ofString());
        synchronized (took) {
          took.add("[" + i + "," + (System.nanoTime() - start) / 1e6 + "]");
        }
      }
    } catch (Exception error) {
      System.err.println(error);
    }
  }
}
