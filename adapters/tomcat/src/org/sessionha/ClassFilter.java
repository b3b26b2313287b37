package org.sessionha;

import java.io.ObjectInputFilter;
import java.io.ObjectInputFilter.Status;
import java.io.ObjectInputStream;

/**
 * Which classes a restored session may hold, in the language of {@code jdk.serialFilter}. What the administrator wrote
 * is asked first, then a list of classes known for turning deserialisation into execution. The list is a second line:
 * the first is that nothing is deserialised that httpd has not signed. Only an allow list that ends in {@code !*} keeps
 * out what nobody thought of.
 */
final class ClassFilter {

    private static final String DENIED = String.join(";",
            "!org.apache.commons.collections.functors.**", "!org.apache.commons.collections.keyvalue.TiedMapEntry",
            "!org.apache.commons.collections4.functors.**", "!org.apache.commons.collections4.keyvalue.TiedMapEntry",
            "!org.apache.commons.beanutils.BeanComparator", "!org.apache.commons.fileupload.disk.**",
            "!org.apache.wicket.util.upload.**", "!org.apache.tomcat.dbcp.**", "!org.apache.commons.dbcp.**",
            "!org.apache.commons.dbcp2.**", "!com.mchange.v2.c3p0.**", "!org.apache.naming.**",
            "!bsh.**", "!org.mozilla.javascript.**", "!org.python.**", "!clojure.inspector.**",
            "!org.codehaus.groovy.runtime.ConvertedClosure", "!org.codehaus.groovy.runtime.MethodClosure",
            "!com.rometools.rome.feed.impl.**", "!com.sun.syndication.feed.impl.**", "!org.aspectj.weaver.**",
            "!org.hibernate.engine.spi.TypedValue", "!org.hibernate.tuple.**",
            "!org.apache.myfaces.view.facelets.el.ValueExpressionMethodExpression",
            "!com.vaadin.data.util.NestedMethodProperty", "!org.springframework.core.SerializableTypeWrapper*",
            "!org.springframework.beans.factory.support.AutowireUtils*", "!org.springframework.transaction.jta.**",
            "!org.apache.xalan.**", "!com.sun.org.apache.xalan.**", "!com.sun.org.apache.bcel.**",
            "!com.sun.rowset.JdbcRowSetImpl", "!com.sun.jndi.**", "!sun.rmi.**", "!java.rmi.**", "!javax.management.**",
            "!java.beans.EventHandler", "!java.beans.beancontext.**", "!java.security.SignedObject",
            "!sun.reflect.annotation.**");

    private final ObjectInputFilter rules;

    /** IllegalArgumentException: not a filter. */
    ClassFilter(String configured, long maxBytes) {
        String limits = "maxdepth=500;maxrefs=" + Math.max(10_000, maxBytes) + ";maxbytes=" + maxBytes + ";maxarray="
                + maxBytes;
        String own = configured == null || configured.trim().isEmpty() ? "" : configured.trim() + ';';
        // limits hold wherever they stand; of the class patterns the first that matches decides
        rules = ObjectInputFilter.Config.createFilter(limits + ';' + own + DENIED);
    }

    void install(ObjectInputStream in) {
        ObjectInputFilter ofJvm = in.getObjectInputFilter();
        in.setObjectInputFilter(ofJvm == null ? rules : info -> {
            Status general = ofJvm.checkInput(info);
            return general == Status.REJECTED ? general : rules.checkInput(info);
        });
    }
}
