"""The only generator of the wire contract: `.proto` files in, committed Python modules out.

    python -m protos.generate               write the modules and remove those whose source is gone
    python -m protos.generate --check       exit 1 and name the files that differ from what would be written
    python -m protos.generate --lint        buf format, lint and breaking, offline
    python -m protos.generate --image FILE  write the descriptor set for other languages and for `protos/released/`

The repository root is the import path, so a source is named `protos/mesh/v1/job.proto` everywhere and the modules
import one another as they lie. One import line differs: protovalidate has no `buf.validate.validate_pb2`, and a renamed
`buf/validate/validate.proto` makes it refuse every message. So that module is made from the descriptor inside
protovalidate, keeps its file name in the descriptor pool, lies in `protos/vendored/`, and importers are pointed there.

Generated with the oldest supported grpcio-tools: its version is the floor for protobuf and grpcio at run time.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import google.rpc
from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from protovalidate import ViolationPb

ROOT = Path(__file__).resolve().parent.parent
VALIDATE = "buf/validate/validate.proto"
_VALIDATE_IMPORT = "from buf.validate import validate_pb2"
_VENDORED_IMPORT = "from protos.vendored import validate_pb2"

# buf's image format: FileDescriptorProto field 8042 is a message whose field 1 says "an import, not ours to judge".
_IS_IMPORT = bytes([0xD2, 0xF6, 0x03, 0x02, 0x08, 0x01])


class GenerateError(Exception):
    """A tool refused the sources; the text is what it said."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; exit code 0: done or clean, 1: drift, findings or sources that do not compile."""
    options = _parser().parse_args(argv)
    try:
        return _run(options)
    except GenerateError as error:
        _say(str(error))
        return 1


def generate(root: Path = ROOT) -> dict[str, bytes]:
    """All generated files of the tree at `root`, as contents by path relative to `root`."""
    with tempfile.TemporaryDirectory(prefix="mesh-protos-") as scratch:
        out = Path(scratch)
        names = _sources(root)
        services = [name for name in names if name.endswith("_service.proto")]
        _protoc(root, out, ["--python_out", "--mypy_out"], [*names, VALIDATE])
        # Concrete servicers: a service in parts, or a partial one in a test, type-checks; gRPC answers UNIMPLEMENTED.
        flags = ["--grpc_python_out", "--mypy_grpc_out", "--mypy_grpc_opt=generate_concrete_servicer_stubs"]
        _protoc(root, out, flags, services)
        made = (path for path in out.rglob("*_pb2*") if path.is_file())
        return dict(sorted(_placed(path.relative_to(out), path.read_bytes()) for path in made))


def drift(root: Path = ROOT) -> list[str]:
    """What differs between the tree and its sources: `changed`, `missing` or `left over`, then the path."""
    wanted, present = generate(root), _present(root)
    found = [f"missing: {name}" for name in wanted.keys() - present.keys()]
    found += [f"left over: {name}" for name in present.keys() - wanted.keys()]
    found += [f"changed: {name}" for name in wanted.keys() & present.keys() if wanted[name] != present[name]]
    return sorted(found)


def write(root: Path = ROOT) -> list[str]:
    """Bring the generated files of the tree in line with its sources; returns the paths that changed."""
    wanted, present = generate(root), _present(root)
    for name in present.keys() - wanted.keys():
        (root / name).unlink()
    changed = [name for name, content in wanted.items() if present.get(name) != content]
    for name in changed:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(wanted[name])
    return sorted(changed + list(present.keys() - wanted.keys()))


def image(root: Path = ROOT, *, comments: bool = False) -> descriptor_pb2.FileDescriptorSet:
    """The contract with all its imports, in dependency order; what is not ours is marked as an import for buf.

    `comments` keeps source positions and comments: needed to lint, left out of what is published.
    """
    with tempfile.TemporaryDirectory(prefix="mesh-protos-") as scratch:
        out = Path(scratch) / "image.binpb"
        flags = ["--include_imports", *(["--include_source_info"] if comments else [])]
        _protoc(root, out, ["--descriptor_set_out", *flags], _sources(root))
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    for file in files.file:
        if not file.name.startswith("protos/mesh/"):
            file.MergeFromString(_IS_IMPORT)
    return files


def lint(root: Path = ROOT) -> list[str]:
    """Findings of buf format, lint and breaking, one a line; empty when the contract is clean."""
    findings = _buf(root, "format", ".", "--diff", "--exit-code")
    with tempfile.TemporaryDirectory(prefix="mesh-protos-") as scratch:
        built = Path(scratch) / "image.binpb"
        built.write_bytes(image(root, comments=True).SerializeToString(deterministic=True))
        findings += _buf(root, "lint", str(built), "--config", "buf.yaml")
        released = newest_release(root)
        if released is not None:
            findings += _buf(root, "breaking", str(built), "--against", str(released), "--config", "buf.yaml")
    return findings


def newest_release(root: Path = ROOT) -> Path | None:
    """The descriptor set of the highest version in `protos/released/`, None before the first release."""
    released = (root / "protos" / "released").glob("*.binpb")
    return max(released, key=lambda path: [int(part) for part in path.stem.split(".")], default=None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m protos.generate", description="Generate the wire contract.")
    act = parser.add_mutually_exclusive_group()
    act.add_argument("--check", action="store_true", help="write nothing; exit 1 if a generated file differs")
    act.add_argument("--lint", action="store_true", help="run buf format, lint and breaking; exit 1 on a finding")
    act.add_argument("--image", type=Path, metavar="FILE", help="write the descriptor set for other languages")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to work on (default: this one)")
    return parser


def _run(options: argparse.Namespace) -> int:
    root: Path = options.root
    if options.check:
        return _report(drift(root), "generated files are what the sources say", "run `python -m protos.generate`")
    if options.lint:
        return _report(lint(root), _lint_passed(root), "the contract has findings")
    if options.image is not None:
        options.image.write_bytes(image(root).SerializeToString(deterministic=True))
        _say(f"wrote {options.image}")
        return 0
    changed = write(root)
    _report(changed, "nothing to write", f"wrote or removed {len(changed)} files")
    return 0


def _report(lines: Sequence[str], clean: str, summary: str) -> int:
    for line in lines:
        _say(line)
    _say(summary if lines else clean)
    return 1 if lines else 0


def _lint_passed(root: Path) -> str:
    released = newest_release(root)
    against = f"compatible with {released.stem}" if released else "no released version yet, so nothing can be broken"
    return f"buf format and lint are clean; {against}"


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _sources(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in (root / "protos" / "mesh").rglob("*.proto"))


def _present(root: Path) -> dict[str, bytes]:
    made = [*(root / "protos").rglob("*_pb2*.py"), *(root / "protos").rglob("*_pb2*.pyi")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in made}


def _placed(path: Path, content: bytes) -> tuple[str, bytes]:
    """Where a file that protoc made belongs, and its content with the one import rewritten."""
    name = path.as_posix().replace("buf/validate/", "protos/vendored/")
    return name, content.replace(_VALIDATE_IMPORT.encode(), _VENDORED_IMPORT.encode())


def _protoc(root: Path, out: Path, outputs: Iterable[str], names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="mesh-protos-") as scratch:
        validate = Path(scratch) / "validate.binpb"
        validate.write_bytes(_validate_set().SerializeToString())
        flags = [f"{flag}={out}" if flag.endswith("_out") else flag for flag in outputs]
        _call(root, [sys.executable, "-m", "grpc_tools.protoc", *_imports(root, validate), *flags, *names])


def _imports(root: Path, validate: Path) -> list[str]:
    scripts = Path(sysconfig.get_path("scripts"))
    # `google` is shared by several distributions: the folder that protoc needs is the one above google/rpc.
    google_rpc = Path(next(iter(google.rpc.__path__))).parent.parent
    return [
        *(f"--proto_path={path}" for path in (root, google_rpc)),
        f"--descriptor_set_in={validate}",
        *(f"--plugin={name}={scripts / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
    ]


def _validate_set() -> descriptor_pb2.FileDescriptorSet:
    """The rules' own descriptor, from inside protovalidate, with what it imports."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.add().ParseFromString(ViolationPb.desc().file.proto.to_binary())
    return files


def _buf(root: Path, *arguments: str) -> list[str]:
    buf = shutil.which("buf", path=sysconfig.get_path("scripts"))
    if buf is None:
        raise GenerateError("buf is not installed in this environment: install the development requirements")
    done = subprocess.run([buf, *arguments], cwd=root, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    return said or [f"buf {arguments[0]} failed with {done.returncode}"] if done.returncode else []


def _call(root: Path, command: Sequence[str]) -> None:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GenerateError(done.stderr.strip() or f"{command[0]} failed with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
