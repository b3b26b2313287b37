package shop;

import java.io.IOException;
import java.util.concurrent.atomic.AtomicInteger;

import jakarta.servlet.ServletContextEvent;
import jakarta.servlet.ServletContextListener;
import jakarta.servlet.http.HttpSession;
import jakarta.websocket.DeploymentException;
import jakarta.websocket.Endpoint;
import jakarta.websocket.EndpointConfig;
import jakarta.websocket.HandshakeResponse;
import jakarta.websocket.MessageHandler;
import jakarta.websocket.Session;
import jakarta.websocket.server.HandshakeRequest;
import jakarta.websocket.server.ServerContainer;
import jakarta.websocket.server.ServerEndpointConfig;

/**
 * A WebSocket at /echo for the tests. The handshake counts in the caller's session, if there is one; the first message
 * tells "count=N member=ROUTE id=SESSIONID", then every message comes back.
 */
public class Echo extends Endpoint implements ServletContextListener {

    private static final String MEMBER = System.getProperty("member", "-");

    @Override
    public void contextInitialized(ServletContextEvent event) {
        ServerContainer container = (ServerContainer) event.getServletContext()
                .getAttribute(ServerContainer.class.getName());
        try {
            container.addEndpoint(
                    ServerEndpointConfig.Builder.create(Echo.class, "/echo").configurator(new Greeting()).build());
        } catch (DeploymentException e) {
            throw new IllegalStateException(e);
        }
    }

    @Override
    public void onOpen(Session socket, EndpointConfig config) {
        socket.addMessageHandler(new MessageHandler.Whole<String>() {
            @Override
            public void onMessage(String text) {
                send(socket, text);
            }
        });
        send(socket, (String) socket.getUserProperties().get("greeting"));
    }

    private static void send(Session socket, String text) {
        try {
            socket.getBasicRemote().sendText(text);
        } catch (IOException e) {
            throw new IllegalStateException(e);
        }
    }

    private static class Greeting extends ServerEndpointConfig.Configurator {
        @Override
        public void modifyHandshake(ServerEndpointConfig config, HandshakeRequest request, HandshakeResponse response) {
            HttpSession session = (HttpSession) request.getHttpSession();
            int count = 0;
            if (session != null) {
                synchronized (session) {
                    AtomicInteger counter = (AtomicInteger) session.getAttribute("counter");
                    if (counter == null) {
                        counter = new AtomicInteger();
                    }
                    count = counter.incrementAndGet();
                    session.setAttribute("counter", counter);
                }
            }
            config.getUserProperties().put("greeting",
                    "count=" + count + " member=" + MEMBER + " id=" + (session == null ? "-" : session.getId()));
        }
    }
}
