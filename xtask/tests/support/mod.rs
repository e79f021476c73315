//! A machine in a temporary folder: tools that answer as the test wants, archives, a recipe, a catalogue.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

pub(crate) const VERSION: &str = "2.11.0";

/// A temporary folder with `bin/` in front of the path.
pub(crate) struct Machine {
    folder: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(machine.path("bin")).unwrap();
        // Flushing a busy machine's whole disk proves nothing here.
        machine.tool("sync", "exit 0");
        // No test may reach a network, whatever the machine can.
        machine.tool("curl", "echo 'curl: (6) Could not resolve host' >&2; exit 6");
        machine.tool("apt-get", "echo 'E: Unable to locate package' >&2; exit 100");
        for pip in ["python3", "python", "pip", "pip3"] {
            machine.tool(pip, "echo 'No matching distribution found' >&2; exit 1");
        }
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a shell script on the path.
    pub(crate) fn tool(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Lets the system's own tool through.
    pub(crate) fn real_tool(&self, name: &str) {
        fs::remove_file(self.path("bin").join(name)).unwrap();
    }

    /// A pip that runs `script` first and then hands out the wheels in `wheels/`.
    pub(crate) fn pip(&self, script: &str) {
        let wheels = self.path("wheels");
        let log = self.path("pip.log");
        self.tool(
            "python3",
            &format!(
                r#"[ "$1 $2" = "-m pip" ] || exit 1
[ "$3" = --version ] && exit 0
for argument; do
  case "$previous" in --dest) dest=$argument;; esac
  case "$argument" in *==*) package=$(echo "${{argument%%==*}}" | tr - _);; esac
  previous=$argument
done
echo "$package" >> {log}
{script}
cp {wheels}/"$package"-*.whl "$dest"/"#,
                log = log.display(),
                wheels = wheels.display(),
            ),
        );
    }

    /// `xtask` on this machine, as if no environment asked for anything.
    pub(crate) fn xtask(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        for name in ["LIBTORCH", "LIBTORCH_USE_PYTORCH", "REPRO_DATA", "VIRTUAL_ENV", "CARGO"] {
            command.env_remove(name);
        }
        let system = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{system}", self.path("bin").display()));
        command.env("CARGO_MANIFEST_DIR", self.path("checkout/xtask"));
        command
    }

    /// Writes wheels that look like torch's, with `headers` headers, and the recipe that pins them.
    pub(crate) fn wheels(&self, headers: usize) {
        let folder = self.path("wheels");
        fs::create_dir_all(&folder).unwrap();
        let mut members: Vec<(String, Vec<u8>)> =
            (0..headers).map(|index| (format!("torch/include/h{index}.h"), vec![b'x'; 512])).collect();
        members.push(("torch/include/torch/csrc/api/include/torch/torch.h".into(), b"header".to_vec()));
        for name in ["libc10.so", "libtorch_cpu.so", "libgomp.so.1", "libtorch_cuda.so"] {
            members.push((format!("torch/lib/{name}"), name.as_bytes().to_vec()));
        }
        let torch = folder.join("torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl");
        write_zip(&torch, &members);
        let cuda = folder.join("nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl");
        write_zip(&cuda, &[("nvidia/cu13/lib/libcudart.so.13".into(), b"cudart".to_vec())]);
        self.recipe(&[
            (
                "torch",
                &torch,
                r#"{ from = "torch/include/", to = "include/" }, { from = "torch/lib/libc10.so", to = "lib/libc10.so" },
                   { from = "torch/lib/libtorch_cpu.so", to = "lib/libtorch_cpu.so" },
                   { from = "torch/lib/libgomp.so.1", to = "lib/libgomp.so.1" }"#,
            ),
            (
                "nvidia-cuda-runtime",
                &cuda,
                r#"{ from = "nvidia/cu13/lib/libcudart.so.13", to = "lib/libcudart.so.13" }"#,
            ),
        ]);
    }

    /// A recipe of an archive that cannot be reached and of wheels, pinned as they are now.
    pub(crate) fn recipe(&self, wheels: &[(&str, &Path, &str)]) {
        let mut text = format!(
            "version = \"{VERSION}\"\n[[source]]\nkind = \"zip\"\nname = \"the archive\"\n\
             url = \"https://example.invalid/libtorch.zip\"\nfile = \"libtorch.zip\"\n\
             take = [{{ from = \"libtorch/include/\", to = \"include/\" }}, \
             {{ from = \"libtorch/lib/\", to = \"lib/\", containing = \".so\" }}]\n\
             [[source]]\nkind = \"wheels\"\nname = \"the index\"\n"
        );
        for (package, path, take) in wheels {
            let bytes = fs::read(path).unwrap();
            text += &format!(
                "[[source.wheel]]\npackage = \"{package}\"\nversion = \"0\"\nfile = \"{}\"\nbytes = {}\n\
                 sha256 = \"{}\"\ntake = [{take}]\n",
                path.file_name().unwrap().to_str().unwrap(),
                bytes.len(),
                sha256(&bytes),
            );
        }
        fs::write(self.path("recipe.toml"), text).unwrap();
    }

    pub(crate) fn setup(&self) -> Command {
        let mut command = self.xtask();
        command.arg("setup").arg("--dir").arg(self.path("libtorch"));
        command.arg("--recipe").arg(self.path("recipe.toml"));
        command
    }
}

/// Runs to the end; returns whether it succeeded, and all it said.
pub(crate) fn run(mut command: Command) -> (bool, String) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn write_zip(path: &Path, members: &[(String, Vec<u8>)]) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    for (name, content) in members {
        zip.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
}

/// Names of what lies in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
