package shop;

import java.io.IOException;
import java.io.InputStream;
import java.io.PrintWriter;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicInteger;

import jakarta.servlet.AsyncContext;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpSession;

/**
 * A cart and a counter for the tests and the demo. Plain text, one line: name=value pairs that end in
 * "member=ROUTE id=SESSIONID". GET and POST do the same.
 */
public class Shop extends HttpServlet {

    private static final long serialVersionUID = 1L;
    private static final String MEMBER = System.getProperty("member", "-");

    @Override
    protected void service(HttpServletRequest request, HttpServletResponse response)
            throws ServletException, IOException {
        response.setContentType("text/plain");
        response.setCharacterEncoding("UTF-8");
        switch (request.getServletPath()) {
        case "/ping":               // needs no session, and makes none
            response.getWriter().println("pong member=" + MEMBER);
            break;
        case "/cart":               // cart?add=apple; &quiet: change it in place, without setAttribute
            cart(request, response);
            break;
        case "/count":              // count?peek, count?ms=N: wait after counting
            count(request, response);
            break;
        case "/tick":               // tick?rid=NAME: count, and write down that NAME was run; tick?ms=N
            tick(request, response);
            break;
        case "/login":              // login?user=alice: request.login; login alone: changeSessionId
            login(request, response);
            break;
        case "/form":               // the page that asks for user and password
            response.getWriter().println("form member=" + MEMBER);
            break;
        case "/private":            // for users who are logged in (POST j_security_check)
            line(request, response, "private=" + request.getUserPrincipal().getName() + " what=" + request.getParameter("what"));
            break;
        case "/logout":             // logout?again: and begin a new session; logout?renew: change the id first
            logout(request, response);
            break;
        case "/big":                // big?bytes=N[&text]: random bytes, or words, as an attribute; big alone: how many, and their digest
            big(request, response);
            break;
        case "/slow":               // slow?ms=N: count, then wait
            line(request, response, "count=" + increment(request.getSession()));
            sleep(request);
            break;
        case "/async":              // async?ms=N: count and answer in another thread; async?dispatch
            async(request, response);
            break;
        case "/flush":              // flush: commit, then count; flush?first: count, then commit, then count
            flush(request, response);
            break;
        case "/overflow":           // overflow?bytes=N[&stream]: count, then more than the response buffer holds
            overflow(request, response);
            break;
        case "/throw":              // count, then fail
            increment(request.getSession());
            throw new IllegalStateException("as the test wishes");
        case "/die":                // count, then end as no servlet should: the response is never committed
            increment(request.getSession());
            throw new OutOfMemoryError("as the test wishes");
        case "/error":              // count, then sendError
            increment(request.getSession());
            response.sendError(503);
            break;
        case "/redirect":           // count, then sendRedirect
            increment(request.getSession());
            response.sendRedirect(response.encodeRedirectURL(request.getContextPath() + "/count?peek"));
            break;
        case "/url":                // an encoded URL
            request.getSession();
            line(request, response, "url=" + response.encodeURL(request.getContextPath() + "/count"));
            break;
        case "/body":               // read the body, and count; body?ms=N: then wait
            body(request, response);
            break;
        case "/set":                // set?what=trap|plain
            set(request, response);
            break;
        case "/max":                // max?seconds=N: how long the session may be idle
            request.getSession().setMaxInactiveInterval(Integer.parseInt(request.getParameter("seconds")));
            line(request, response, "max=" + request.getSession().getMaxInactiveInterval());
            break;
        case "/state":              // what the odd attributes look like
            state(request, response);
            break;
        default:
            response.sendError(404);
        }
    }

    private static void cart(HttpServletRequest request, HttpServletResponse response) throws IOException {
        String add = request.getParameter("add");
        List<String> cart = cartOf(request.getSession());
        String items;
        synchronized (cart) {
            if (add != null) {
                cart.add(add);
                if (request.getParameter("quiet") == null) {
                    request.getSession().setAttribute("cart", cart);
                }
            }
            items = String.join(",", cart);
        }
        line(request, response, "cart=" + items);
    }

    @SuppressWarnings("unchecked")
    private static List<String> cartOf(HttpSession session) {
        synchronized (session) {
            List<String> cart = (List<String>) session.getAttribute("cart");
            if (cart == null) {
                cart = new ArrayList<>();
                session.setAttribute("cart", cart);
            }
            return cart;
        }
    }

    private static void count(HttpServletRequest request, HttpServletResponse response) throws IOException {
        if (request.getParameter("peek") == null) {
            line(request, response, "count=" + increment(request.getSession()));
        } else {
            HttpSession session = request.getSession(false);
            AtomicInteger counter = session == null ? null : (AtomicInteger) session.getAttribute("counter");
            line(request, response, "count=" + (counter == null ? 0 : counter.get()));
        }
        sleep(request);
    }

    private static int increment(HttpSession session) {
        synchronized (session) {
            AtomicInteger counter = (AtomicInteger) session.getAttribute("counter");
            if (counter == null) {
                counter = new AtomicInteger();
            }
            int value = counter.incrementAndGet();
            session.setAttribute("counter", counter);   // DeltaManager copies what it is told of
            return value;
        }
    }

    /** What was run, and not only what was answered: a line a run, in a file that outlives this process. */
    private static void tick(HttpServletRequest request, HttpServletResponse response) throws IOException {
        HttpSession session = request.getSession();
        int value;
        synchronized (session) {
            value = increment(session);
            String line = request.getParameter("rid") + " " + value + " " + MEMBER + " "
                    + System.currentTimeMillis() + "\n";
            Files.write(Paths.get(System.getProperty("ledger")), line.getBytes(StandardCharsets.UTF_8),
                    StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        }
        line(request, response, "count=" + value);
        sleep(request);
    }

    private static void login(HttpServletRequest request, HttpServletResponse response)
            throws IOException, ServletException {
        request.getSession();
        String user = request.getParameter("user");
        if (user == null) {
            request.changeSessionId();
        } else {
            request.login(user, user);
        }
        line(request, response, "login=" + user);
    }

    private static void logout(HttpServletRequest request, HttpServletResponse response) throws IOException {
        HttpSession session = request.getSession(false);
        if (session != null) {
            if (request.getParameter("renew") != null) {
                request.changeSessionId();
            }
            session.invalidate();
        }
        if (request.getParameter("again") != null) {
            increment(request.getSession());
        }
        line(request, response, "logout=" + (session != null));
    }

    private static void big(HttpServletRequest request, HttpServletResponse response) throws IOException {
        HttpSession session = request.getSession();
        String bytes = request.getParameter("bytes");
        if (bytes != null) {
            byte[] data = new byte[Integer.parseInt(bytes)];
            Random random = new Random();
            random.nextBytes(data);
            if (request.getParameter("text") != null) {
                byte[] words = "article colour quantity price ".getBytes(StandardCharsets.US_ASCII);
                for (int i = 0; i < data.length; i++) {
                    data[i] = i % 40 < words.length ? words[i % 40] : (byte) ('0' + (data[i] & 7));
                }
            }
            session.setAttribute("big", data);
        }
        byte[] data = (byte[]) session.getAttribute("big");
        line(request, response, data == null ? "big=0" : "big=" + data.length + " sha256=" + sha256(data));
    }

    private static void async(HttpServletRequest request, HttpServletResponse response) {
        if (request.getAttribute("dispatched") != null) {
            throw new IllegalStateException("dispatched to itself");
        }
        boolean dispatch = request.getParameter("dispatch") != null;
        AsyncContext context = request.startAsync();
        Thread thread = new Thread(() -> {
            try {
                sleep(request);
                if (dispatch) {
                    request.setAttribute("dispatched", Boolean.TRUE);
                    context.dispatch("/count");
                } else {
                    line(request, response, "count=" + increment(request.getSession()));
                    context.complete();
                }
            } catch (IOException | RuntimeException e) {
                request.getServletContext().log("async", e);
                context.complete();
            }
        });
        thread.setDaemon(true);
        thread.start();
    }

    private static void flush(HttpServletRequest request, HttpServletResponse response) throws IOException {
        HttpSession session = request.getSession();
        if (request.getParameter("first") != null) {
            increment(session);
        }
        response.flushBuffer();
        if (request.getParameter("logout") != null) {
            session.invalidate();
            response.getWriter().println("logout=late member=" + MEMBER);
        } else {
            line(request, response, "count=" + increment(session));
        }
    }

    private static void overflow(HttpServletRequest request, HttpServletResponse response) throws IOException {
        int bytes = Integer.parseInt(request.getParameter("bytes"));
        int count = increment(request.getSession());
        if (request.getParameter("stream") != null) {
            response.getOutputStream().write(new byte[bytes]);
        } else {
            PrintWriter out = response.getWriter();
            for (int i = 0; i < bytes; i++) {
                out.print('x');
            }
            line(request, response, " count=" + count);
        }
    }

    private static void body(HttpServletRequest request, HttpServletResponse response) throws IOException {
        byte[] bytes;
        try (InputStream in = request.getInputStream()) {
            bytes = in.readAllBytes();
        }
        line(request, response,
                "body=" + bytes.length + " sha256=" + sha256(bytes) + " count=" + increment(request.getSession()));
        sleep(request);
    }

    private static void set(HttpServletRequest request, HttpServletResponse response) throws IOException {
        Object value = "trap".equals(request.getParameter("what")) ? new Trap() : new Object();
        request.getSession().setAttribute("odd", value);
        line(request, response, "set=" + value.getClass().getName());
    }

    private static void state(HttpServletRequest request, HttpServletResponse response) throws IOException {
        HttpSession session = request.getSession(false);
        Object odd = session == null ? null : session.getAttribute("odd");
        line(request, response,
                "odd=" + (odd == null ? "-" : odd.getClass().getName()) + " sprung=" + Trap.sprung() + " user="
                        + (request.getUserPrincipal() == null ? "-" : request.getUserPrincipal().getName()) + " auth="
                        + request.getAuthType() + " role=" + request.isUserInRole("customer") + " created="
                        + (session == null ? 0 : session.getCreationTime()) + " max="
                        + (session == null ? 0 : session.getMaxInactiveInterval()));
    }

    private static void line(HttpServletRequest request, HttpServletResponse response, String what) throws IOException {
        HttpSession session = request.getSession(false);
        response.getWriter().println(what + " member=" + MEMBER + " id=" + (session == null ? "-" : session.getId()));
    }

    private static void sleep(HttpServletRequest request) {
        String ms = request.getParameter("ms");
        if (ms != null) {
            try {
                Thread.sleep(Long.parseLong(ms));
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }
    }

    private static String sha256(byte[] bytes) {
        try {
            return String.format("%064x", new BigInteger(1, MessageDigest.getInstance("SHA-256").digest(bytes)));
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
    }
}
