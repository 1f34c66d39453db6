// @ts-check
/**
 * Pictures for a message, made small enough to be read back with their session: contents of more than 200,000
 * characters are not.
 */

const MOST = 8;
const MOST_CHARACTERS = 180_000;
const SIDES = [1568, 1280, 1024, 768, 512, 384, 256];
const QUALITIES = [0.85, 0.7, 0.55];
const TYPES = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/** Return `data:` URIs of the files, of all pictures together; throws an `Error` for people. @param {Blob[]} files */
export async function toDataUris(files) {
  if (files.length > MOST) throw new Error(`A message can have ${MOST} pictures.`);
  return Promise.all(files.map((file) => toDataUri(file, MOST_CHARACTERS / files.length)));
}

/** Return true if the picture is in the text of its address, not elsewhere. @param {string} uri */
export const isHeld = (uri) => uri.startsWith("data:");

/** Return true if a message can have all of them. @param {string[]} uris */
export function fitTogether(uris) {
  const held = uris.filter(isHeld);
  return held.length <= MOST && held.join("").length <= MOST_CHARACTERS;
}

/** @param {Blob} file @param {number} limit */
async function toDataUri(file, limit) {
  if (TYPES.includes(file.type) && file.size < (limit * 3) / 4 - 64) return read(file);
  const picture = await createImageBitmap(file).catch(() => {
    throw new Error("This file is not a picture that can be sent: use PNG, JPEG, GIF or WebP.");
  });
  for (const side of SIDES) {
    for (const quality of QUALITIES) {
      const uri = draw(picture, side).toDataURL("image/jpeg", quality);
      if (uri.length < limit) return uri;
    }
  }
  throw new Error("This picture is too large to be sent.");
}

/** @param {ImageBitmap} picture @param {number} side */
function draw(picture, side) {
  const scale = Math.min(1, side / Math.max(picture.width, picture.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** @param {Blob} file @returns {Promise<string>} */
function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(new Error("The picture cannot be read."));
    reader.readAsDataURL(file);
  });
}
