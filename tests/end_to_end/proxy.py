"""A way between two instances that can be made bad: slow, cut, cut in the middle of a message, stalled, or closed to all."""
import random
import socket
import threading
import time

CHUNK = 16 << 10


class Proxy:
    """Listens on a Unix socket and passes on what comes to another. Changes apply at once, to connections there are as well."""

    def __init__(self, listen, to, seed=0):
        self.to, self.chance = str(to), random.Random(seed)
        self.delay_s, self.cut_after, self.refuses = 0.0, None, False
        self.passed_bytes, self.connections, self.cuts = 0, 0, 0
        self._open = threading.Event()
        self._open.set()
        self._pairs, self._lock, self._ended = [], threading.Lock(), False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(listen))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    # --- what befalls it

    def stall(self):
        """Nothing is read nor written, and nobody is told."""
        self._open.clear()

    def cut(self):
        with self._lock:
            pairs, self._pairs = self._pairs, []
        self.cuts += len(pairs)
        for pair in pairs:
            self._close(pair)

    def heal(self):
        self.delay_s, self.cut_after, self.refuses = 0.0, None, False
        self._open.set()

    def end(self):
        self._ended = True
        self.heal()
        self._listener.close()
        self.cut()

    # --- the work

    def _accept(self):
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                if self.refuses:
                    raise OSError("closed to all")
                far.connect(self.to)
            except OSError:  # nobody is there: so is who is far away from an instance that is not running
                near.close()
                far.close()
                continue
            self.connections += 1
            with self._lock:
                self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink, (near, far)), daemon=True).start()

    def _pump(self, source, sink, pair):
        left = None
        try:
            while True:
                self._open.wait()
                data = source.recv(CHUNK)
                if not data:
                    break
                self._open.wait()
                if self.delay_s:
                    time.sleep(self.delay_s)
                if self.cut_after is None:
                    left = None
                elif left is None:
                    left = self.chance.randrange(self.cut_after)
                if left is not None and len(data) > left:
                    sink.sendall(data[:left])  # some of a message
                    self.cuts += 1
                    break
                if left is not None:
                    left -= len(data)
                sink.sendall(data)
                self.passed_bytes += len(data)
        except OSError:
            pass  # one of the ends is gone, which the other is told now
        self._close(pair)

    @staticmethod
    def _close(pair):
        for end in pair:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it was shut down by the other direction
            end.close()
