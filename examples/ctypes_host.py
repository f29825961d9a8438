"""A Python host without any binding: libreprise called through ctypes.

    ctypes_host.py LIBRARY STORE      the library as libreprise.so.0, or a path of it
"""
import ctypes
import os
import sys


class RepriseError(OSError):
    pass


class Reprise:
    """The few functions that this host needs. Handles are void pointers; what is negative is an errno."""

    ENTRY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_int)
    FUNCTIONS = {
        "reprise_instance_open": (ctypes.c_int, [ctypes.c_char_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)]),
        "reprise_instance_close": (ctypes.c_int, [ctypes.c_void_p]),
        "reprise_fork": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)]),
        "reprise_join": (ctypes.c_int64, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p]),
        "reprise_discard": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p]),
        "reprise_guest_attach": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)]),
        "reprise_guest_detach": (ctypes.c_int, [ctypes.c_void_p]),
        "reprise_write_file": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32]),
        "reprise_read_file": (ctypes.c_int64, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]),
        "reprise_list": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ENTRY, ctypes.c_void_p]),
    }

    def __init__(self, library):
        self.library = ctypes.CDLL(library)
        self.library.reprise_last_error.restype = ctypes.c_char_p
        for name, (result, arguments) in self.FUNCTIONS.items():
            function = getattr(self.library, name)
            function.restype, function.argtypes = result, arguments

    def call(self, name, *arguments):
        result = getattr(self.library, name)(*arguments)
        if result < 0:
            raise RepriseError(-result, self.library.reprise_last_error().decode(errors="replace"))
        return result

    def handle(self, name, *arguments):
        """What a function gives back through its last parameter."""
        given = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(given))
        return given


class Guest:
    """An interpreter's view of an instance, for as long as a `with` lasts."""

    def __init__(self, reprise, instance):
        self.reprise, self.handle = reprise, reprise.handle("reprise_guest_attach", instance, None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reprise.call("reprise_guest_detach", self.handle)

    def write(self, path, data):
        self.reprise.call("reprise_write_file", self.handle, os.fsencode(path), data, len(data), 0o666)

    def read(self, path):
        size = self.reprise.call("reprise_read_file", self.handle, os.fsencode(path), None, 0)
        room = ctypes.create_string_buffer(size)
        length = self.reprise.call("reprise_read_file", self.handle, os.fsencode(path), room, size)
        return room.raw[:min(length, size)]

    def list(self, path):
        names = []
        add = self.reprise.ENTRY(lambda _, name, inode, kind: names.append(os.fsdecode(name)) or 0)
        self.reprise.call("reprise_list", self.handle, os.fsencode(path), add, None)
        return names


def main():
    reprise = Reprise(sys.argv[1])
    site = reprise.handle("reprise_instance_open", os.fsencode(sys.argv[2]), None)
    with Guest(reprise, site) as guest:
        guest.write("/hello", b"hi")
    for name, good in ("bad", False), ("good", True):
        attempt = reprise.handle("reprise_fork", site, name.encode())
        with Guest(reprise, attempt) as guest:
            guest.write(f"/{name}", guest.read("/hello") + b", " + name.encode())
        reprise.call("reprise_instance_close", attempt)
        if not good:
            reprise.call("reprise_discard", site, name.encode())
        elif reprise.call("reprise_join", site, name.encode(), None, None) != 0:
            sys.exit("the site has changed in the same places meanwhile")
    with Guest(reprise, site) as guest:
        for name in guest.list("/"):
            print(f"{name}: {guest.read('/' + name).decode()}")
        try:
            guest.read("/bad")
        except RepriseError as error:
            print(f"as it should be: {error.strerror}")
    reprise.call("reprise_instance_close", site)


main()
