"""The Debian packages are what their names say, and a foreign project can be built against them and nothing else.

    packages_test.py BUILD_FOLDER CPACK CMAKE [-v]      -v: shows what is run, and what it says
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

build, cpack, cmake = sys.argv[1:4]
verbose = sys.argv[4:] == ["-v"]
here = pathlib.Path(__file__).parent
header = (here / "../../adapters/capi/reprise.h").read_text()


def run(*command, fails=False, **options):
    """What the command says; that it fails where it should not ends the test."""
    command = [str(word) for word in command]
    if verbose:
        print("$", *command, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100, **options)
    if verbose:
        print(done.stdout, end="")
    if (done.returncode != 0) != fails:
        sys.exit(f"{' '.join(command)}: expected {'failure' if fails else 'success'}, found {done.returncode}\n{done.stdout}")
    return done.stdout


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: expected {wanted!r}, found {found!r}")


def unpack(work):
    """Makes the packages, unpacks them into one root, and returns that and the files of each."""
    run(cpack, "--config", f"{build}/CPackConfig.cmake", "-B", work / "cpack", cwd=work)
    root, files = work / "root", {}
    for package in sorted((work / "cpack").glob("*.deb")):
        name = package.name.split("_")[0]
        listing = run("dpkg-deb", "--contents", package)
        files[name] = {line.split()[5][2:] for line in listing.splitlines() if not line.split()[5].endswith("/")}
        run("dpkg-deb", "--extract", package, root)
        expect(f"{name} is of root and nobody else", set(re.findall(r"^\S+ (\S+)", listing, re.MULTILINE)), {"root/root"})
        depends = run("dpkg-deb", "--field", package, "Depends", "Version")
        wanted = {"libreprise0": "libc6 ", "libreprise-dev": "libreprise0 (= ", "reprise-tools": "fuse3"}[name]
        if wanted not in depends:
            sys.exit(f"{name} depends on: expected {wanted} among it, found {depends}")
    return root, files


def check_files(files, version):
    library = f"usr/lib/{os.uname().machine}-linux-gnu"
    expect("packages", sorted(files), ["libreprise-dev", "libreprise0", "reprise-tools"])
    expect("libreprise0", files["libreprise0"], {
        f"{library}/libreprise.so.0", f"{library}/libreprise.so.{version}", "usr/share/doc/libreprise0/copyright"})
    targets = {f for f in files["libreprise-dev"] if re.search(r"/RepriseTargets(-\w+)?\.cmake$", f)}
    expect("libreprise-dev", files["libreprise-dev"] - targets, {
        "usr/include/reprise.h", "usr/include/reprise.hpp", f"{library}/libreprise.so", f"{library}/libreprise.a",
        f"{library}/pkgconfig/reprise.pc", f"{library}/pkgconfig/reprise-static.pc",
        f"{library}/cmake/Reprise/RepriseConfig.cmake", f"{library}/cmake/Reprise/RepriseConfigVersion.cmake",
        "usr/share/doc/libreprise-dev/copyright"})
    pages = {f for f in files["reprise-tools"] if f.startswith("usr/share/man/man1/")}
    expect("reprise-tools", files["reprise-tools"] - pages, {
        "usr/bin/reprise", "usr/share/bash-completion/completions/reprise", "usr/share/doc/reprise-tools/copyright"})
    if "usr/share/man/man1/reprise-run.1.gz" not in pages:
        sys.exit(f"reprise-tools: expected a man page of `reprise run`, found {sorted(pages)}")
    return library


def symbols(root, library):
    """The archive shows the header's functions, as the shared library does, and no name else."""
    declared = set(re.findall(r"^REPRISE_API [^;(]*?\b(reprise_\w+)\(", header, re.MULTILINE))
    archive = run("nm", "--defined-only", "--extern-only", "--format=posix", root / library / "libreprise.a")
    expect("libreprise.a", {line.split()[0] for line in archive.splitlines() if len(line.split()) > 1}, declared)
    shared = run("nm", "-D", "--defined-only", "--format=posix", root / library / "libreprise.so.0")
    expect("libreprise.so", {line.split()[0].split("@")[0] for line in shared.splitlines()} - {"REPRISE_0"}, declared)
    print(f"{len(declared)} functions in the library and in the archive")


def in_c(root, library, work):
    """With pkg-config."""
    environment = dict(os.environ, PKG_CONFIG_PATH=str(root / library / "pkgconfig"))
    for name in "reprise", "reprise-static":
        flags = run("pkg-config", "--cflags", "--libs", name, env=environment).split()
        program = work / f"c-{name}"
        run("cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", work / "foreign/host.c", "-o", program, *flags)
        yield name, program


def in_cpp(root, library, work):
    """With CMake."""
    configure = [cmake, "-S", work / "foreign", f"-DCMAKE_PREFIX_PATH={root}/usr", "-DCMAKE_BUILD_TYPE=Release"]
    run(*configure, "-B", work / "too-new", "-DWANTED=9.0", fails=True)
    run(*configure, "-B", work / "built", "-DWANTED=0.1")
    run(cmake, "--build", work / "built", "--parallel", "1")
    for name in "shared", "static":
        yield name, work / "built" / name


def main():
    version = re.search(r"VERSION_MAJOR (\d+)", header)[1] + "".join(
        "." + re.search(rf"VERSION_{part} (\d+)", header)[1] for part in ("MINOR", "PATCH"))
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        shutil.copytree(here / "foreign", work / "foreign")
        root, files = unpack(work)
        library = check_files(files, version)
        symbols(root, library)
        expect("reprise --version", run(root / "usr/bin/reprise", "--version"), f"{version}\n")
        shared = dict(os.environ, LD_LIBRARY_PATH=str(root / library))
        said = {"c": f"{version}: kept\n", "cpp": "joined; reprise_write_file /f: Read-only file system (EROFS)\n"}
        for language, build_all in ("c", in_c), ("cpp", in_cpp):
            for name, program in build_all(root, library, work):
                place = work / f"{language}-{name}.store"
                place.mkdir()
                static = "static" in name
                needs = "libreprise" in run("ldd", program, env=shared)
                expect(f"{language}, {name}: needs the shared library", needs, not static)
                output = run(program, place / "store" if language == "c" else place, env=dict(os.environ) if static else shared)
                expect(f"{language}, {name}", output, said[language])
                print(f"{language}, {name}: {output}", end="")


main()
