//! What the guest boots: Debian's kernel, unpacked and never installed, and an initramfs with the modules of the radio.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::Problem;
use crate::problem::Context;
use crate::steps::say;
use crate::workspace::{command, output, root, run, scratch};

/// What gives a guest its root, its randomness and its radio, in the order in which they can be loaded. The random number
/// generator comes before the elliptic curves, whose self-test needs it.
const MODULES: [&str; 20] = [
    "virtio_pci",
    "9pnet_virtio",
    "9p",
    "overlay",
    "virtio_rng",
    "hmac",
    "sha256_generic",
    "sha512_generic",
    "ctr",
    "drbg",
    "ecb",
    "cmac",
    "ecdh_generic",
    "algif_hash",
    "algif_skcipher",
    "aesni_intel",
    "bluetooth",
    "hci_vhci",
    "virtio_console",
    "uhid",
];
/// How an xz stream begins.
const XZ_MAGIC: [u8; 6] = *b"\xfd7zXZ\0";

/// A kernel and an initramfs that QEMU can boot.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
}

/// Makes the image, from what an earlier run left where possible.
pub(super) fn prepare() -> Result<Image, Problem> {
    let folder = scratch("ble");
    fs::create_dir_all(&folder).context("making a folder for the guest")?;
    let lock = File::create(folder.join("image.lock")).context("locking the guest's image")?;
    lock.lock().context("locking the guest's image")?;
    let package = kernel_package()?;
    let folder = folder.join(&package);
    let kernel = folder.join("vmlinux");
    if kernel.is_file() {
        say(&format!("    {package} is there"));
    } else {
        unpack(&package, &folder)?;
    }
    let initramfs = pack(&folder)?;
    Ok(Image { kernel, initramfs })
}

/// The newest kernel of this Debian, by the package that depends on it.
fn kernel_package() -> Result<String, Problem> {
    let depends = output(&mut command("apt-cache", ["depends", "linux-image-amd64"]))?;
    let missing = || Problem::Needs("apt knows no linux-image-amd64: apt-get update".to_owned());
    parse_depends(&depends).ok_or_else(missing)
}

fn parse_depends(text: &str) -> Option<String> {
    let mut packages = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    packages.find(|package| package.starts_with("linux-image-")).map(str::to_owned)
}

/// Downloads the kernel's package and keeps of it the kernel and the modules that the guest needs.
fn unpack(package: &str, folder: &Path) -> Result<(), Problem> {
    if folder.exists() {
        fs::remove_dir_all(folder).context("removing a kernel that was not unpacked to the end")?;
    }
    let tree = folder.join("tree");
    fs::create_dir_all(&tree).context("making a folder for the kernel")?;
    run(command("apt-get", ["-qq", "download", package]).current_dir(folder))?;
    let files = fs::read_dir(folder).context("looking for the kernel's package")?.flatten().map(|entry| entry.path());
    let missing = || Problem::Wrong(format!("apt-get download {package} left no package"));
    let deb = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb")).ok_or_else(missing)?;
    run(command("dpkg-deb", ["--extract"]).args([&deb, &tree]))?;

    let version = package.trim_start_matches("linux-image-");
    run(command("depmod", ["--basedir"]).arg(&tree).arg(version))?;
    gather_modules(&tree, version, &folder.join("initramfs"))?;
    // Last, and by a rename: what says that the rest is complete.
    decompress(&tree.join("boot").join(format!("vmlinuz-{version}")), &folder.join("vmlinux"))?;
    fs::remove_dir_all(&tree).context("removing what the guest does not need")?;
    fs::remove_file(&deb).context("removing the kernel's package")
}

/// Copies the modules and what they need, and writes the order in which they can be loaded.
fn gather_modules(tree: &Path, version: &str, initramfs: &Path) -> Result<(), Problem> {
    let folder = initramfs.join("modules");
    fs::create_dir_all(&folder).context("making a folder for the modules")?;
    let mut order: Vec<String> = Vec::new();
    for module in MODULES {
        let mut modprobe = command("modprobe", ["--show-depends", "--set-version", version, "--dirname"]);
        let text = output(modprobe.arg(tree).arg(module))?;
        for path in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let path = Path::new(path.trim());
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !order.contains(&name) {
                fs::copy(path, folder.join(&name)).context(path.display().to_string())?;
                order.push(name);
            }
        }
    }
    order.push(String::new());
    fs::write(folder.join("order"), order.join("\n")).context("writing the order of the modules")
}

/// Takes the kernel out of its compressed form, which an emulated machine would need seconds for. A kernel that is
/// compressed in another way is booted as it is.
fn decompress(vmlinuz: &Path, vmlinux: &Path) -> Result<(), Problem> {
    let compressed = fs::read(vmlinuz).context(vmlinuz.display().to_string())?;
    let new = vmlinux.with_extension("new");
    match compressed.windows(XZ_MAGIC.len()).position(|window| window == XZ_MAGIC) {
        Some(start) => {
            let payload = vmlinux.with_extension("xz");
            fs::write(&payload, compressed.get(start..).unwrap_or_default()).context("writing the kernel")?;
            let mut xz = command("xz", ["--decompress", "--single-stream", "--stdout"]);
            xz.arg(&payload).stdout(File::create(&new).context("writing the kernel")?);
            run(&mut xz)?;
            fs::remove_file(&payload).context("removing the compressed kernel")?;
        }
        None => fs::write(&new, compressed).context("writing the kernel")?,
    }
    fs::rename(&new, vmlinux).context("writing the kernel")
}

/// Packs the modules, a busybox and our init. It takes a moment, so nobody has to know whether init has changed.
fn pack(folder: &Path) -> Result<PathBuf, Problem> {
    let initramfs = folder.join("initramfs");
    for name in ["bin", "proc", "sys", "dev", "lower", "upper", "root"] {
        fs::create_dir_all(initramfs.join(name)).context("making the initramfs")?;
    }
    fs::copy("/usr/bin/busybox", initramfs.join("bin/busybox")).context("copying busybox")?;
    fs::copy("/usr/bin/busybox", initramfs.join("bin/sh")).context("copying busybox")?;
    fs::copy(root().join("tests/ble/init"), initramfs.join("init")).context("copying tests/ble/init")?;
    run(&mut command("chmod", [Path::new("755"), &initramfs.join("init")]))?;
    // Not compressed: the guest would pay for it. By a rename, as a guest that another task boots may be reading it.
    let script = "busybox find . | busybox cpio --create --format=newc >../initramfs.new 2>/dev/null";
    run(command("sh", ["-c", script]).current_dir(&initramfs))?;
    let packed = folder.join("initramfs.cpio");
    fs::rename(folder.join("initramfs.new"), &packed).context("packing the initramfs")?;
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_the_metapackage_depends_on() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(parse_depends(text).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(parse_depends("linux-image-amd64\n  Suggests: x\n"), None);
    }

    #[test]
    fn a_kernel_comes_out_of_its_compressed_form_or_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (packed, plain) = (folder.path().join("vmlinuz"), folder.path().join("vmlinux"));
        fs::write(&packed, b"not compressed").unwrap();
        decompress(&packed, &plain).unwrap();
        assert_eq!(fs::read(&plain).unwrap(), b"not compressed");

        let xz = command("sh", ["-c", "printf kernel | xz --stdout"]).output().unwrap().stdout;
        fs::write(&packed, [b"a stub".as_slice(), &xz, b"something behind it"].concat()).unwrap();
        decompress(&packed, &plain).unwrap();
        assert_eq!(fs::read(&plain).unwrap(), b"kernel");
    }
}
