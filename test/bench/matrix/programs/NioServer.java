// A server on one NIO selector that echoes what it gets; the port is its argument.
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;

public final class NioServer {
  public static void main(String[] args) throws IOException {
    Selector selector = Selector.open();
    ServerSocketChannel listener = ServerSocketChannel.open();
    listener.bind(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), 128);
    listener.configureBlocking(false);
    listener.register(selector, SelectionKey.OP_ACCEPT);
    ByteBuffer buffer = ByteBuffer.allocateDirect(65536);
    while (true) {
      selector.select();
      for (SelectionKey key : selector.selectedKeys()) {
        if (key.isAcceptable()) {
          SocketChannel accepted = listener.accept();
          if (accepted == null) continue;
          accepted.configureBlocking(false);
          accepted.setOption(StandardSocketOptions.TCP_NODELAY, true);
          accepted.register(selector, SelectionKey.OP_READ);
        } else {
          echo((SocketChannel) key.channel(), buffer);
        }
      }
      selector.selectedKeys().clear();
    }
  }

  private static void echo(SocketChannel channel, ByteBuffer buffer) throws IOException {
    buffer.clear();
    try {
      if (channel.read(buffer) < 0) {
        channel.close();
        return;
      }
      buffer.flip();
      while (buffer.hasRemaining()) channel.write(buffer); // a line fits any send buffer
    } catch (IOException gone) {
      channel.close();
    }
  }
}
