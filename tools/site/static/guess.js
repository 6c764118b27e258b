// A prediction takes a guess: Enter tells the answer, and how far off the guess is.

document.querySelectorAll(".prediction").forEach((box) => {
  const { answer } = box.dataset;
  const number = parseFloat(answer);
  const form = document.createElement("form");
  form.innerHTML = '<label>Your guess <input inputmode="decimal" autocomplete="off"></label><output></output>';
  const [input, reply] = form.querySelectorAll("input, output");

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim().replace(",", ".");
    const off = Number(text) - number;
    if (text === "" || !Number.isFinite(off)) {
      reply.value = "Type a number, such as 12.5, and press Enter.";
      return;
    }
    const distance = String(Number(Math.abs(off).toPrecision(4)));
    const how = off === 0 ? "right" : `you were ${distance} ${off > 0 ? "above" : "below"}`;
    reply.value = `The answer is ${answer}: ${how}.`;
  });
  box.querySelector("details").before(form);
});
