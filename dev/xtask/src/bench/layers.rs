//! The big image of the pull: four layers that look like real ones, the same bytes on every machine.

use testkit::image::{Build, Image, Layer};
use testkit::place;
use testkit::tar::Archive;

/// Layers of the image.
const LAYERS: usize = 4;

/// Files in a layer.
const FILES: usize = 1100;

/// Bytes of a file.
const SIZE: usize = 256 * 1024;

/// The image from the cache, or made now, two layers at a time.
pub fn image() -> Image {
    let cache = place::testdata().join("bench-1");
    if let Some(image) = Image::load(&cache) {
        return image;
    }
    println!("making the image of the pull");
    let mut build = Build::new();
    for pair in (0..LAYERS).collect::<Vec<_>>().chunks(2) {
        let threads: Vec<_> = pair
            .iter()
            .map(|n| {
                std::thread::spawn({
                    let n = *n;
                    move || layer(n)
                })
            })
            .collect();
        for thread in threads {
            build = build.layer(thread.join().expect("a layer is made"));
        }
    }
    let image = build.cmd(&["/bin/true"]).build();
    image.save(&cache);
    image
}

/// One layer: a little under half of each file packs away, as in real programs and libraries.
fn layer(number: usize) -> Layer {
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
    let mut tar = Archive::new().dir("usr/", 0o755).dir(&format!("usr/layer{number}/"), 0o755);
    for file in 0..FILES {
        let mut data = Vec::with_capacity(SIZE);
        while data.len() < SIZE {
            let word = random.next();
            if word % 7 < 3 {
                data.extend_from_slice(b"a library's tables and padding ");
                data.resize(data.len() + 33, 0);
            } else {
                (0..8).for_each(|_| data.extend_from_slice(&random.next().to_le_bytes()));
            }
        }
        if file % 100 == 0 {
            tar = tar.dir(&format!("usr/layer{number}/{}/", file / 100), 0o755);
        }
        tar = tar.file(&format!("usr/layer{number}/{}/{file}", file / 100), 0o644, &data);
    }
    Layer::gzip(tar.finish())
}

/// A random number generator of no worth but this: it is the same everywhere.
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
