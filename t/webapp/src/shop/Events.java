package shop;

import java.io.IOException;
import java.io.PrintWriter;
import java.util.concurrent.atomic.AtomicInteger;

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpSession;

/**
 * Server-sent events for the tests: events?ms=N[&amp;times=N]. Counts once; each event is "n=N count=N member=ROUTE", one
 * every N milliseconds.
 */
public class Events extends HttpServlet {

    private static final long serialVersionUID = 1L;
    private static final String MEMBER = System.getProperty("member", "-");

    @Override
    protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
        int ms = Integer.parseInt(request.getParameter("ms"));
        String times = request.getParameter("times");
        int end = times == null ? Integer.MAX_VALUE : Integer.parseInt(times);
        int count = increment(request.getSession());
        response.setContentType("text/event-stream");
        response.setCharacterEncoding("UTF-8");
        PrintWriter out = response.getWriter();
        try {
            for (int n = 1; n <= end && !out.checkError(); n++) {
                if (n > 1) {
                    Thread.sleep(ms);
                }
                out.print("data: n=" + n + " count=" + count + " member=" + MEMBER + "\n\n");
                out.flush();
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private static int increment(HttpSession session) {
        synchronized (session) {
            AtomicInteger counter = (AtomicInteger) session.getAttribute("counter");
            if (counter == null) {
                counter = new AtomicInteger();
            }
            int value = counter.incrementAndGet();
            session.setAttribute("counter", counter);
            return value;
        }
    }
}
