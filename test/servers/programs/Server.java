import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

public final class Server {
    public static void main(String[] arguments) throws Exception {
        String version = System.getenv().getOrDefault("VERSION", "1");
        int port = Integer.parseInt(System.getenv("PORT"));
        HttpServer server = HttpServer.create(new InetSocketAddress(port), 0);
        server.createContext("/", exchange -> {
            String peer = exchange.getRemoteAddress().getAddress().getHostAddress();
            byte[] body = ("java " + version + " " + peer + "\n").getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
