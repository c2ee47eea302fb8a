"use strict";
// Draws the scene of one scan. Points are on the GPU once per cloud; a frame is a byte per point that says whether it is
// kept. Everything here works on the arrays that page.py packed.

const $ = (id) => document.getElementById(id);
const scene = JSON.parse($("scene").textContent);
const MOVERS = ["#e4572e", "#8d4fb8", "#c98a00", "#1f8a4c"];
const STILL = "#2e7fa5";

function refuse(text) {
  $("notice").textContent = text;
  $("notice").hidden = false;
  $("panel").hidden = true;
  $("fold").hidden = true;
  document.body.dataset.state = "refused";
}

// Data

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return await new Response(stream).arrayBuffer();
}

let buffer; // all arrays, one after another
const bytes = ([start, size]) => new Uint8Array(buffer, start, size);
const copied = ([start, size]) => buffer.slice(start, start + size);

function decodePoints(cloud) {
  const { n, low, step } = cloud;
  const split = bytes(cloud.point), out = new Float32Array(3 * n);
  for (let axis = 0; axis < 3; axis++) {
    const at = 4 * axis * n;
    let value = 0;
    for (let i = 0; i < n; i++) {
      const folded = (split[at + i] | (split[at + n + i] << 8) | (split[at + 2 * n + i] << 16) | (split[at + 3 * n + i] << 24)) >>> 0;
      value += folded & 1 ? -(folded >>> 1) - 1 : folded >>> 1;
      out[3 * i + axis] = low[axis] + step * value;
    }
  }
  return out;
}

function maskOf(actor, n, frame) { // a byte per point: 255 if the frame keeps it
  const planes = bytes(actor.planes), width = (n + 7) >> 3, out = new Uint8Array(n);
  for (let i = 0; i < n; i++) if ((planes[frame * width + (i >> 3)] >> (7 - (i & 7))) & 1) out[i] = 255;
  return out;
}

function framesThatKeep(actor, n, t) {
  const out = new Uint8Array(n);
  for (let frame = 0; frame < t; frame++) {
    const mask = maskOf(actor, n, frame);
    for (let i = 0; i < n; i++) out[i] += mask[i] >> 7;
  }
  return out;
}

// Colours

function hue(h, s, l) { // degrees, shares -> [r, g, b] of 255
  const f = (k) => { const a = (k + h / 30) % 12; return Math.round(255 * (l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(a - 3, 9 - a, 1)))); };
  return [f(0), f(8), f(4)];
}
const category = (number) => (number < 0 ? [150, 150, 150] : hue((number * 137.508 + 260) % 360, 0.32 + 0.1 * (number % 3), 0.5 + 0.09 * (number % 2)));
const css = ([r, g, b]) => `rgb(${r},${g},${b})`;
const hex = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
const moverColour = (actor) => hex(MOVERS[Math.max(actor.mover, 0) % MOVERS.length]);
const isMoving = (actor) => scene.kind === "moving" && scene.roles[actor.role] === "moving";

function ramp(x) { // blue, teal, sand, for a share
  const stops = [[33, 66, 107], [64, 140, 153], [222, 213, 178]], at = Math.min(Math.max(x, 0), 1) * 2, i = Math.min(Math.floor(at), 1);
  return stops[i].map((v, k) => v + (at - i) * (stops[i + 1][k] - v));
}

function coloursOf(actor, number, cloud, sequence) { // a colour per point, or null for that of its height
  const { n } = cloud, mode = state.colour;
  const whole = (colour) => { const out = new Uint8Array(3 * n); for (let i = 0; i < n; i++) out.set(colour, 3 * i); return out; };
  const each = (of) => { const out = new Uint8Array(3 * n); for (let i = 0; i < n; i++) out.set(of(i), 3 * i); return out; };
  if (mode === "height") return isMoving(actor) ? whole(moverColour(actor)) : null;
  if (mode === "actor") return whole(category(number));
  if (mode === "identity") return each((i) => hue((300 * i) / n, 0.6, 0.52));
  if (mode === "kept") {
    const kept = framesThatKeep(actor, n, sequence.t);
    return each((i) => ramp(kept[i] / sequence.t));
  }
  const place = cloud[mode];
  if (!place) return whole([150, 150, 150]);
  const ids = new Int32Array(copied(place));
  const known = new Map();
  return each((i) => { let c = known.get(ids[i]); if (!c) known.set(ids[i], (c = category(ids[i]))); return c; });
}

// WebGL

const POINTS = [`#version 300 es
layout(location=0) in vec3 point; layout(location=1) in float kept; layout(location=2) in vec3 colour;
layout(location=3) in float outward;
uniform mat4 pose, camera; uniform float cut, size; uniform vec4 heights; uniform vec2 facing, walls; uniform bool own;
uniform sampler2D free; uniform vec3 floorAt; uniform vec4 green; // first cell and height of the floor; colour and how much of it
out vec3 tint;
vec3 ramp(float x) {
  x = clamp(x, 0., 1.) * 2.;
  vec3 a = vec3(.13,.26,.42), b = vec3(.25,.55,.60), c = vec3(.87,.835,.70);
  return x < 1. ? mix(a, b, x) : mix(b, c, x - 1.);
}
void main() {
  vec4 at = pose * vec4(point, 1.);
  float angle = (outward - 1.) / 254. * 6.28318531;
  bool near = outward > 0. && walls.x > 0. && at.z > walls.y && dot(vec2(cos(angle), sin(angle)), facing) > .25;
  if (kept < .5 || at.z > cut || near) { gl_Position = vec4(2., 2., 2., 1.); gl_PointSize = 0.; return; }
  gl_Position = camera * at;
  gl_PointSize = clamp(size / gl_Position.w, 1.5, 24.);
  tint = own ? colour : ramp((at.z - heights.x) / (heights.y - heights.x));
  ivec2 cell = ivec2(floor(at.xy / floorAt.z)) - ivec2(floorAt.xy), cells = textureSize(free, 0);
  bool within = all(greaterThanEqual(cell, ivec2(0))) && all(lessThan(cell, cells));
  if (green.a > 0. && !own && within && abs(at.z - heights.w) < .1 && texelFetch(free, cell, 0).r > 0.) tint = mix(tint, green.rgb, green.a);
}`, `#version 300 es
precision mediump float; in vec3 tint; out vec4 pixel;
void main() { vec2 d = gl_PointCoord - .5; if (dot(d, d) > .25) discard; pixel = vec4(tint, 1.); }`];

const FLOOR = [`#version 300 es
layout(location=0) in vec3 point; uniform mat4 camera; void main() { gl_Position = camera * vec4(point, 1.); }`, `#version 300 es
precision mediump float; uniform vec3 colour; out vec4 pixel; void main() { pixel = vec4(colour, 1.); }`];

const SHADE = [`#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4. - 1., 0., 1.); }`, `#version 300 es
precision highp float; uniform sampler2D image, depth; uniform vec2 nearFar; uniform float reach; uniform vec3 back; out vec4 pixel;
float far(ivec2 at) { float d = texelFetch(depth, at, 0).r; return d >= 1. ? -1. : nearFar.x * nearFar.y / (nearFar.y - d * (nearFar.y - nearFar.x)); }
void main() { // eye-dome lighting: what lies behind its neighbours is darker
  ivec2 at = ivec2(gl_FragCoord.xy), size = textureSize(depth, 0);
  float here = far(at), sum = 0.;
  for (int k = 0; k < 8; k++) {
    vec2 way = vec2(cos(float(k) * .785398), sin(float(k) * .785398)) * reach;
    float there = far(clamp(at + ivec2(round(way)), ivec2(0), size - 1));
    if (there > 0.) sum += here < 0. ? 0. : max(0., log2(here) - log2(there));
  }
  pixel = here < 0. ? vec4(back, 1.) : vec4(texelFetch(image, at, 0).rgb * exp(-min(sum * 4., 1.)), 1.);
}`];

let gl, programs, target;

function program([vertex, fragment]) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  return { id: made, at: (name) => gl.getUniformLocation(made, name) };
}

function attribute(place, size, kind, data, scaled) {
  const made = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, made);
  gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, size, kind, scaled, 0, 0);
  return made;
}

function prepareClouds() {
  for (const cloud of scene.clouds) {
    cloud.xyz = decodePoints(cloud);
    cloud.pointBuffer = attribute(0, 3, gl.FLOAT, cloud.xyz, false);
    cloud.outBuffer = attribute(3, 1, gl.UNSIGNED_BYTE, cloud.outward ? bytes(cloud.outward) : new Uint8Array(cloud.n), false);
  }
  if (scene.floor) Object.assign(scene.floor, { mesh: floorMesh(scene.floor), texture: floorTexture(scene.floor) });
}

function floorMesh(floor) { // two triangles per run of free cells, just below the floor, so that the scan covers it
  const valid = bytes(floor.valid), [nx, ny] = floor.shape, out = [];
  for (let i = 0; i < nx; i++) {
    for (let j = 0; j < ny; j++) {
      if (!valid[i * ny + j]) continue;
      let end = j + 1;
      while (end < ny && valid[i * ny + end]) end++;
      const [x0, x1] = [0, 1].map((d) => (floor.origin[0] + i + d) * floor.cell);
      const [y0, y1] = [j, end].map((v) => (floor.origin[1] + v) * floor.cell), z = floor.z - 0.04;
      out.push(x0, y0, z, x1, y0, z, x0, y1, z, x1, y0, z, x1, y1, z, x0, y1, z);
      j = end;
    }
  }
  const mesh = { vertices: gl.createVertexArray(), count: out.length / 3 };
  gl.bindVertexArray(mesh.vertices);
  attribute(0, 3, gl.FLOAT, new Float32Array(out), false);
  gl.bindVertexArray(null);
  return mesh;
}

function floorTexture(floor) { // a texel per cell, x to the right
  const valid = bytes(floor.valid), [nx, ny] = floor.shape, turned = new Uint8Array(nx * ny);
  for (let i = 0; i < nx; i++) for (let j = 0; j < ny; j++) turned[j * nx + i] = valid[i * ny + j] * 255;
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8, nx, ny, 0, gl.RED, gl.UNSIGNED_BYTE, turned);
  for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
  return made;
}

// State: what is shown

const state = { sequence: scene.first, time: 0, beside: -1, colour: "height", pairs: false, floor: true, ways: true, walls: true,
  cut: null, yaw: -0.9, pitch: 0.75, zoom: 1, pan: [0, 0, 0], playing: false };
let drawn = []; // the actors of the sequence, as they are on the GPU
const sequence = () => scene.sequences[state.sequence];
const frameOf = (time) => Math.round(time);

function release() {
  for (const actor of drawn) {
    for (const b of [actor.colourBuffer, ...actor.masks.values()]) gl.deleteBuffer(b);
    gl.deleteVertexArray(actor.vertices);
  }
}

function loadSequence() {
  release();
  drawn = sequence().actors.map((actor) => {
    const cloud = scene.clouds[actor.cloud], vertices = gl.createVertexArray();
    gl.bindVertexArray(vertices);
    for (const [place, size, kind, b] of [[0, 3, gl.FLOAT, cloud.pointBuffer], [3, 1, gl.UNSIGNED_BYTE, cloud.outBuffer]]) {
      gl.bindBuffer(gl.ARRAY_BUFFER, b);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, size, kind, false, 0, 0);
    }
    gl.bindVertexArray(null);
    return { ...actor, n: cloud.n, xyz: cloud.xyz, vertices, masks: new Map(), poses: new Float32Array(copied(actor.pose)) };
  });
  paintSequence();
}

function paintSequence() {
  drawn.forEach((actor, number) => {
    const colours = coloursOf(actor, number, scene.clouds[actor.cloud], sequence());
    if (actor.colourBuffer) gl.deleteBuffer(actor.colourBuffer);
    gl.bindVertexArray(actor.vertices);
    actor.own = colours !== null;
    actor.colourBuffer = attribute(2, 3, gl.UNSIGNED_BYTE, colours || new Uint8Array(3 * actor.n), true);
    gl.bindVertexArray(null);
  });
  legend();
}

function legend() {
  const row = $("legend");
  row.replaceChildren();
  const add = (colour, text) => {
    const item = document.createElement("span"), dot = document.createElement("i");
    dot.style.background = css(colour);
    item.append(dot, text);
    row.append(item);
  };
  const now = sequence();
  if (state.colour === "height") {
    add(ramp(0), `${now.low.toFixed(2)} m`);
    add(ramp(1), `${now.high.toFixed(2)} m`);
    now.movers.forEach((mover, i) => add(hex(MOVERS[i % MOVERS.length]), mover.shape));
  } else if (state.colour === "kept") {
    add(ramp(0), "none");
    add(ramp(1), `all ${now.t}`);
  } else if (state.colour === "actor") {
    now.actors.slice(0, 12).forEach((actor, i) => add(category(i), `${i} ${scene.roles[actor.role]}`));
  } else if (state.colour === "label") {
    const counts = new Map();
    for (const actor of now.actors) {
      const place = scene.clouds[actor.cloud].label;
      if (place) for (const id of new Int32Array(copied(place))) counts.set(id, (counts.get(id) || 0) + 1);
    }
    if (!counts.size) row.textContent = "this scan has no labels";
    for (const [id] of [...counts].sort((a, b) => b[1] - a[1]).slice(0, 14)) add(category(id), scene.labels[id] || (id < 0 ? "none" : `${id}`));
  }
}

// Camera

const sub = (a, b) => a.map((v, i) => v - b[i]);
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => { const l = Math.hypot(...a) || 1; return a.map((v) => v / l); };
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const FIELD = 0.6; // of view, radians

function multiply(a, b) { // of 4 x 4 matrices by columns
  const out = new Float32Array(16);
  for (let c = 0; c < 4; c++) for (let r = 0; r < 4; r++) for (let k = 0; k < 4; k++) out[4 * c + r] += a[4 * k + r] * b[4 * c + k];
  return out;
}

function look(aspect) {
  const { centre, radius } = sequence();
  const away = (radius / Math.sin(FIELD / 2) / Math.min(1, aspect)) * state.zoom * 0.78;
  const to = [Math.cos(state.pitch) * Math.cos(state.yaw), Math.cos(state.pitch) * Math.sin(state.yaw), Math.sin(state.pitch)];
  const at = centre.map((v, i) => v + state.pan[i]), eye = at.map((v, i) => v + away * to[i]);
  const right = unit([-Math.sin(state.yaw), Math.cos(state.yaw), 0]), up = cross(to, right);
  const view = [right[0], up[0], to[0], 0, right[1], up[1], to[1], 0, right[2], up[2], to[2], 0, -dot(right, eye), -dot(up, eye), -dot(to, eye), 1];
  const near = Math.max(away / 100, away - 3 * radius), far = away + 6 * radius, f = 1 / Math.tan(FIELD / 2);
  const lens = [f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / (near - far), -1, 0, 0, (2 * far * near) / (near - far), 0];
  return { matrix: multiply(lens, view), near, far, right, up, away, facing: unit([to[0], to[1], 0]).slice(0, 2), scale: f };
}

function poseAt(actor, time) { // between frames what moves goes straight, so that the eye can follow
  const i = Math.floor(time), share = time - i;
  const of = (frame) => actor.poses.subarray(16 * frame, 16 * frame + 16);
  if (share === 0 || !isMoving(actor)) return of(frameOf(time));
  const a = of(i), b = of(i + 1), mixed = Float32Array.from(a, (v, k) => v + share * (b[k] - v));
  const size = Math.hypot(a[0], a[1], a[2]), z = Math.atan2(a[1], a[0]);
  let turn = Math.atan2(b[1], b[0]) - z;
  turn = Math.atan2(Math.sin(turn), Math.cos(turn)) * share;
  if (Math.abs(a[10] / size - 1) < 1e-4) { // it turns about z alone: on a circle, not through itself
    const [c, s] = [Math.cos(z + turn) * size, Math.sin(z + turn) * size];
    mixed.set([c, s, 0, 0, -s, c, 0, 0, 0, 0, size, 0]);
  }
  return mixed;
}

// Drawing

function resize() {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  for (const canvas of [$("points"), $("lines")]) {
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((v) => Math.max(1, Math.round(v * ratio)));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  }
  const { width, height } = $("points");
  if (target && target.width === width && target.height === height) return;
  if (target) { gl.deleteFramebuffer(target.id); gl.deleteTexture(target.image); gl.deleteTexture(target.depth); }
  target = { width, height, id: gl.createFramebuffer() };
  gl.bindFramebuffer(gl.FRAMEBUFFER, target.id);
  const texture = (inner, format, kind, point) => {
    const made = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, made);
    gl.texImage2D(gl.TEXTURE_2D, 0, inner, width, height, 0, format, kind, null);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, point, gl.TEXTURE_2D, made, 0);
    return made;
  };
  target.image = texture(gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, gl.COLOR_ATTACHMENT0);
  target.depth = texture(gl.DEPTH_COMPONENT24, gl.DEPTH_COMPONENT, gl.UNSIGNED_INT, gl.DEPTH_ATTACHMENT);
}

function background() {
  const colour = getComputedStyle(document.body).backgroundColor.match(/\d+/g);
  return colour.slice(0, 3).map((v) => v / 255);
}

function views() { // parts of the canvas, each with a time
  const { width, height } = target;
  if (state.beside < 0) return [{ x: 0, width, height, time: state.time }];
  const half = width >> 1;
  return [{ x: 0, width: half, height, time: state.time }, { x: half, width: width - half, height, time: state.beside }];
}

function maskBuffer(actor, frame) {
  if (!actor.masks.has(frame)) {
    const made = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, made);
    gl.bufferData(gl.ARRAY_BUFFER, maskOf(actor, actor.n, frame), gl.STATIC_DRAW);
    actor.masks.set(frame, made);
  }
  return actor.masks.get(frame);
}

function drawPoints(view, camera, green) {
  const { id, at } = programs.points, now = sequence();
  gl.useProgram(id);
  gl.uniformMatrix4fv(at("camera"), false, camera.matrix);
  gl.uniform1f(at("cut"), state.cut);
  const spacing = scene.kind === "views" ? now.radius / 45 : Math.max(now.radius / 260, 0.012);
  gl.uniform4f(at("heights"), now.low, now.high + 0.15 * (now.high - now.low), 0, scene.floor ? scene.floor.z : 0);
  gl.uniform4f(at("green"), ...green, state.floor && scene.floor ? 0.55 : 0);
  gl.activeTexture(gl.TEXTURE0); // never the picture that is being drawn
  gl.bindTexture(gl.TEXTURE_2D, scene.floor ? scene.floor.texture : null);
  gl.uniform1i(at("free"), 0);
  gl.uniform3f(at("floorAt"), ...(scene.floor ? [...scene.floor.origin, scene.floor.cell] : [0, 0, 1]));
  gl.uniform2fv(at("facing"), camera.facing);
  gl.uniform2f(at("walls"), state.walls && scene.floor && state.pitch < 1.35 ? 1 : 0, scene.floor ? scene.floor.z + 0.3 : 0);
  for (const actor of drawn) {
    gl.bindVertexArray(actor.vertices);
    gl.bindBuffer(gl.ARRAY_BUFFER, maskBuffer(actor, frameOf(view.time)));
    gl.enableVertexAttribArray(1);
    gl.vertexAttribPointer(1, 1, gl.UNSIGNED_BYTE, true, 0, 0);
    gl.uniform1i(at("own"), actor.own ? 1 : 0);
    gl.uniform1f(at("size"), spacing * (isMoving(actor) ? 3 : 1.9) * camera.scale * view.height / 2);
    gl.uniformMatrix4fv(at("pose"), false, poseAt(actor, view.time));
    gl.drawArrays(gl.POINTS, 0, actor.n);
  }
}

function drawFloor(camera, green) {
  if (!state.floor || !scene.floor) return;
  gl.useProgram(programs.floor.id);
  gl.uniformMatrix4fv(programs.floor.at("camera"), false, camera.matrix);
  gl.uniform3fv(programs.floor.at("colour"), green);
  gl.bindVertexArray(scene.floor.mesh.vertices);
  gl.drawArrays(gl.TRIANGLES, 0, scene.floor.mesh.count);
}

function draw() {
  resize();
  const back = background(), parts = views(), green = back[0] < 0.5 ? [0.2, 0.38, 0.26] : [0.62, 0.82, 0.6];
  const cameras = parts.map((part) => look(part.width / part.height));
  gl.bindFramebuffer(gl.FRAMEBUFFER, target.id);
  gl.viewport(0, 0, target.width, target.height);
  gl.clearColor(...back, 1);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.enable(gl.DEPTH_TEST);
  parts.forEach((part, i) => {
    gl.viewport(part.x, 0, part.width, part.height);
    drawFloor(cameras[i], green);
    drawPoints(part, cameras[i], green);
  });
  gl.bindVertexArray(null);
  gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  gl.viewport(0, 0, target.width, target.height);
  gl.disable(gl.DEPTH_TEST);
  const { id, at } = programs.shade;
  gl.useProgram(id);
  [target.image, target.depth].forEach((texture, i) => { gl.activeTexture(gl.TEXTURE0 + i); gl.bindTexture(gl.TEXTURE_2D, texture); });
  gl.uniform1i(at("image"), 0);
  gl.uniform1i(at("depth"), 1);
  gl.uniform2f(at("nearFar"), cameras[0].near, cameras[0].far);
  gl.uniform1f(at("reach"), Math.max(1, target.height / 700));
  gl.uniform3fv(at("back"), back);
  gl.drawArrays(gl.TRIANGLES, 0, 3);
  drawLines(parts, cameras);
  document.body.dataset.state = "drawn";
}

function drawLines(parts, cameras) { // over the points: ways, discs, numbers of frames, pairs
  const pen = $("lines").getContext("2d"), ratio = target.height / $("lines").clientHeight;
  pen.clearRect(0, 0, target.width, target.height);
  pen.font = `${12 * ratio}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.lineJoin = "round";
  const placed = parts.map((part, i) => (at) => {
    const m = cameras[i].matrix, w = m[3] * at[0] + m[7] * at[1] + m[11] * at[2] + m[15];
    const [x, y] = [0, 1].map((r) => (m[r] * at[0] + m[4 + r] * at[1] + m[8 + r] * at[2] + m[12 + r]) / w);
    return [part.x + ((x + 1) / 2) * part.width, ((1 - y) / 2) * part.height];
  });
  const line = (ends) => { pen.beginPath(); ends.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y))); pen.stroke(); };
  if (state.ways) parts.forEach((part, i) => drawWays(pen, placed[i], line, part, ratio));
  if (parts.length === 2) {
    pen.strokeStyle = getComputedStyle(document.body).color;
    pen.globalAlpha = 0.15;
    line([[parts[1].x, 0], [parts[1].x, target.height]]);
    pen.globalAlpha = 1;
  }
  if (state.pairs) drawPairs(pen, placed, line, ratio);
}

function drawWays(pen, placed, line, part, ratio) {
  const seen = new Set();
  for (const actor of drawn.filter(isMoving)) {
    if (seen.has(actor.mover)) continue;
    seen.add(actor.mover);
    const colour = css(moverColour(actor)), mover = sequence().movers[actor.mover];
    const z = scene.floor ? scene.floor.z + 0.02 : null;
    const at = (frame) => { const p = actor.poses.subarray(16 * frame + 12, 16 * frame + 15); return [p[0], p[1], z === null ? p[2] : z]; };
    const frames = [...Array(sequence().t).keys()];
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = 2 * ratio;
    line(frames.map((frame) => placed(at(frame))));
    for (const frame of frames) {
      pen.lineWidth = (frame === frameOf(part.time) ? 2 : 0.8) * ratio;
      if (mover && mover.radius && z !== null) {
        const [x, y] = at(frame);
        line([...Array(49).keys()].map((k) => placed([x + mover.radius * Math.cos((k * Math.PI) / 24), y + mover.radius * Math.sin((k * Math.PI) / 24), z])));
      }
      const [x, y] = placed(at(frame));
      pen.beginPath();
      pen.arc(x, y, 8 * ratio, 0, 7);
      pen.fill();
      pen.fillStyle = "#fff";
      pen.fillText(`${frame}`, x, y + 4 * ratio);
      pen.fillStyle = colour;
    }
  }
}

function drawPairs(pen, placed, line, ratio) { // between the frames beside each other, or from this frame to the next
  const now = sequence(), here = frameOf(state.time), there = state.beside >= 0 ? state.beside : here + 1;
  if (here === there || there >= now.t) return;
  const [i, j] = [Math.min(here, there), Math.max(here, there)];
  const place = now.pairs[i * now.t - (i * (i + 1)) / 2 + j - i - 1], rows = new Int32Array(copied(place));
  const at = (number, index, frame) => {
    const actor = drawn[number], m = actor.poses.subarray(16 * frame, 16 * frame + 16), p = actor.xyz.subarray(3 * index, 3 * index + 3);
    return [0, 1, 2].map((r) => m[r] * p[0] + m[4 + r] * p[1] + m[8 + r] * p[2] + m[12 + r]);
  };
  pen.lineWidth = 0.8 * ratio;
  pen.globalAlpha = 0.75;
  for (let k = 0; k < rows.length; k += 4) {
    const ends = [[rows[k], rows[k + 1], i], [rows[k + 2], rows[k + 3], j]];
    if (here > there) ends.reverse();
    const actor = drawn[rows[k]];
    pen.strokeStyle = isMoving(actor) ? css(moverColour(actor)) : STILL;
    line(ends.map((end, side) => placed[Math.min(side, placed.length - 1)](at(...end))));
  }
  pen.globalAlpha = 1;
}

// Controls

let waiting = false;
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function show() { // what the panel says
  const now = sequence(), frame = frameOf(state.time);
  $("title").textContent = scene.scan;
  $("what").textContent = now.movers.length
    ? now.movers.map((m) => `${m.shape} (${m.class})${m.height ? `, ${m.height.toFixed(2)} m high` : ""}${m.shrink < 1 ? `, shrunk to ${m.shrink.toFixed(2)}` : ""}`).join("; ")
    : now.title;
  $("sequence").max = scene.sequences.length - 1;
  $("sequence").value = state.sequence;
  $("sequence-text").textContent = `${now.id.split("/").pop()} of ${scene.sequences.length}`;
  $("frame").max = now.t - 1;
  $("frame").value = frame;
  $("frame-text").textContent = `${frame} of 0 to ${now.t - 1}, ${now.points[frame].toLocaleString("en")} points`;
  $("beside").replaceChildren(...[-1, ...Array(now.t).keys()].map((i) => new Option(i < 0 ? "nothing" : `frame ${i}`, i)));
  $("beside").value = state.beside;
  $("colour").value = state.colour;
  for (const name of ["pairs", "floor", "ways", "walls"]) $(name).checked = state[name];
  for (const name of ["floor", "walls"]) $(name).parentElement.hidden = !scene.floor;
  $("ways").parentElement.hidden = !now.actors.some(isMoving);
  $("cut").min = (now.low - 0.1).toFixed(2);
  $("cut").max = (now.high + 0.5).toFixed(2);
  $("cut").value = state.cut;
  $("cut-text").textContent = `${Math.min(state.cut, +$("cut").max).toFixed(2)} m`;
  $("play").textContent = state.playing ? "stop" : "play";
}

function update() { show(); redraw(); }

function setSequence(number) {
  state.sequence = Math.min(Math.max(number, 0), scene.sequences.length - 1);
  const now = sequence();
  state.time = Math.min(frameOf(state.time), now.t - 1);
  if (state.beside >= now.t) state.beside = now.t - 1;
  state.cut = now.cut === null ? now.high + 1e6 : now.cut;
  loadSequence();
  update();
}

function setFrame(frame) { state.playing = false; state.time = Math.min(Math.max(frame, 0), sequence().t - 1); update(); }
function setColour(name) { state.colour = name; paintSequence(); update(); }
function flip(name) { state[name] = !state[name]; update(); }
function setBeside(frame) { state.beside = frame; update(); }
function reset() { Object.assign(state, { yaw: -0.9, pitch: 0.75, zoom: 1, pan: [0, 0, 0] }); update(); }

function play() {
  state.playing = !state.playing;
  if (state.playing && state.time >= sequence().t - 1) state.time = 0;
  let last = performance.now();
  const step = (now) => {
    if (!state.playing) return;
    state.time = Math.min(state.time + (now - last) / 900, sequence().t - 1);
    last = now;
    if (state.time >= sequence().t - 1) state.playing = false;
    show();
    draw();
    if (state.playing) requestAnimationFrame(step);
  };
  update();
  requestAnimationFrame(step);
}

function listen() {
  $("sequence").addEventListener("input", (e) => setSequence(+e.target.value));
  $("frame").addEventListener("input", (e) => setFrame(+e.target.value));
  $("play").addEventListener("click", play);
  $("beside").addEventListener("change", (e) => setBeside(+e.target.value));
  $("colour").addEventListener("change", (e) => setColour(e.target.value));
  $("cut").addEventListener("input", (e) => { state.cut = +e.target.value; update(); });
  for (const name of ["pairs", "floor", "ways", "walls"]) $(name).addEventListener("change", () => flip(name));
  $("fold").addEventListener("click", () => {
    $("fold").setAttribute("aria-expanded", !$("panel").classList.toggle("folded"));
  });
  const colours = [...$("colour").options].map((option) => option.value);
  const keys = {
    ArrowRight: () => setFrame(frameOf(state.time) + 1), ArrowLeft: () => setFrame(frameOf(state.time) - 1),
    ArrowDown: () => setSequence(state.sequence + 1), ArrowUp: () => setSequence(state.sequence - 1),
    " ": play, c: () => setColour(colours[(colours.indexOf(state.colour) + 1) % colours.length]),
    b: () => setBeside(state.beside < 0 ? sequence().t - 1 : -1), p: () => flip("pairs"), f: () => flip("floor"), w: () => flip("walls"), r: reset,
  };
  document.addEventListener("keydown", (e) => {
    if (!keys[e.key] || e.ctrlKey || e.metaKey || e.altKey || e.target.tagName === "SELECT") return;
    e.preventDefault();
    keys[e.key]();
  });
  window.addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  if (window.innerWidth <= 700) $("fold").click();
  listenToPointers($("points"));
}

function listenToPointers(canvas) {
  const held = new Map();
  const spread = () => { const [a, b] = [...held.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
  const move = (dx, dy) => {
    const { right, up, away } = look(1), unitOf = (away * Math.tan(FIELD / 2) * 2) / canvas.clientHeight;
    state.pan = state.pan.map((v, i) => v + unitOf * (-dx * right[i] + dy * up[i]));
  };
  canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); held.set(e.pointerId, [e.clientX, e.clientY]); });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (e) => held.delete(e.pointerId));
  canvas.addEventListener("pointermove", (e) => {
    if (!held.has(e.pointerId)) return;
    const before = held.get(e.pointerId), apart = held.size === 2 ? spread() : 0, [dx, dy] = sub([e.clientX, e.clientY], before);
    held.set(e.pointerId, [e.clientX, e.clientY]);
    if (held.size === 2) {
      move(dx / 2, dy / 2);
      state.zoom = Math.min(Math.max((state.zoom * apart) / (spread() || 1), 0.05), 8);
    } else if (e.buttons & 2 || e.shiftKey) move(dx, dy);
    else {
      state.yaw -= dx * 0.007;
      state.pitch = Math.min(Math.max(state.pitch + dy * 0.007, -1.5), 1.57);
    }
    redraw();
  });
  canvas.addEventListener("wheel", (e) => { e.preventDefault(); state.zoom = Math.min(Math.max(state.zoom * Math.exp(e.deltaY * 0.001), 0.05), 8); redraw(); }, { passive: false });
  canvas.addEventListener("contextmenu", (e) => e.preventDefault());
  canvas.addEventListener("dblclick", reset);
}

function readAddress() { // #sequence=3&frame=2&colour=label&beside=3&pairs&walls=0: a link to a view
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("sequence")) state.sequence = Math.min(Math.max(+given.get("sequence") || 0, 0), scene.sequences.length - 1);
  if (given.has("frame")) state.time = Math.max(Math.floor(+given.get("frame") || 0), 0);
  if (given.has("beside")) state.beside = Math.floor(+given.get("beside") || 0);
  if ([...$("colour").options].some((option) => option.value === given.get("colour"))) state.colour = given.get("colour");
  for (const name of ["pairs", "floor", "ways", "walls"]) if (given.has(name)) state[name] = given.get(name) !== "0";
  for (const name of ["yaw", "pitch", "zoom"]) if (Number.isFinite(parseFloat(given.get(name)))) state[name] = parseFloat(given.get(name));
}

async function begin() {
  gl = $("points").getContext("webgl2", { antialias: false, preserveDrawingBuffer: true });
  if (!gl) return refuse("This page draws with WebGL 2, which this browser does not offer or has turned off.");
  if (!window.DecompressionStream) return refuse("This page needs a newer browser: one that can unpack compressed data (2023 or later).");
  buffer = await unpack($("data").textContent);
  programs = { points: program(POINTS), floor: program(FLOOR), shade: program(SHADE) };
  prepareClouds();
  readAddress();
  setSequence(state.sequence);
  listen();
}

begin().catch((error) => refuse(`This page could not be drawn: ${error.message}`));
