package shop;

import java.io.IOException;
import java.io.ObjectInputStream;
import java.io.Serializable;

/** A class that notices being deserialised: what a class filter must prevent. */
public class Trap implements Serializable {

    private static final long serialVersionUID = 1L;
    private static volatile boolean sprung;

    static boolean sprung() {
        return sprung;
    }

    private void readObject(ObjectInputStream in) throws IOException, ClassNotFoundException {
        in.defaultReadObject();
        sprung = true;
    }
}
