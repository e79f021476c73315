//! Where this checkout is, and cargo commands that run in it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The checkout that `cargo xtask` was called in.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Cargo names the package's folder to the program it runs; a binary started by hand falls back to where it was built.
    pub(crate) fn current() -> Result<Self> {
        let package =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().with_context(|| format!("{} has no parent folder", package.display()))?;
        Ok(Self { root: root.to_path_buf() })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The workspace's own libtorch, which `.cargo/config.toml` points at.
    pub(crate) fn libtorch(&self) -> PathBuf {
        self.root.join(".libtorch")
    }

    /// The data root: `chosen`, else `$REPRO_DATA`, else `data/` of the checkout.
    pub(crate) fn data_root(&self, chosen: Option<&Path>) -> PathBuf {
        chosen.map(Path::to_path_buf).unwrap_or_else(|| {
            env::var_os("REPRO_DATA")
                .filter(|value| !value.is_empty())
                .map_or_else(|| self.default_data_root(), PathBuf::from)
        })
    }

    pub(crate) fn default_data_root(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The `LIBTORCH` that the user set, if it is not the workspace's own that cargo's `[env]` table set for us.
    pub(crate) fn libtorch_of_user(&self) -> Option<PathBuf> {
        let named = env::var_os("LIBTORCH").filter(|value| !value.is_empty()).map(PathBuf::from)?;
        let own = self.libtorch();
        let same = named == own || matches!((named.canonicalize(), own.canonicalize()), (Ok(a), Ok(b)) if a == b);
        (!same).then_some(named)
    }

    /// Cargo, in the same folder and environment as if it had been typed there.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(cargo_program());
        if self.libtorch_of_user().is_none() {
            // Cargo's `[env]` gives it back; leaving ours would be one more thing that build scripts could notice.
            command.env_remove("LIBTORCH");
        }
        // The run-time path in the binaries is relative to `target/`; a target folder elsewhere needs this instead.
        let mut paths = vec![self.libtorch().join("lib")];
        paths.extend(env::var_os("LD_LIBRARY_PATH").iter().flat_map(env::split_paths));
        if let Ok(joined) = env::join_paths(paths) {
            command.env("LD_LIBRARY_PATH", joined);
        }
        command
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target_dir(&self) -> Result<PathBuf> {
        Ok(self.metadata()?.target_directory)
    }

    /// The bench programs of these packages, in cargo's order.
    pub(crate) fn bench_programs(&self, packages: &[&str]) -> Result<Vec<String>> {
        let chosen = |package: &Package| packages.contains(&package.name.as_str());
        let targets = self.metadata()?.packages.into_iter().filter(chosen).flat_map(|package| package.targets);
        Ok(targets.filter(|target| target.kind.iter().any(|kind| kind == "bench")).map(|target| target.name).collect())
    }

    fn metadata(&self) -> Result<Metadata> {
        let output = self
            .cargo()
            .args(["metadata", "--format-version", "1", "--no-deps"])
            .output()
            .context("cannot run cargo metadata")?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("cargo metadata said: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// What is read of `cargo metadata`.
#[derive(serde::Deserialize)]
struct Metadata {
    target_directory: PathBuf,
    packages: Vec<Package>,
}

#[derive(serde::Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(serde::Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}
