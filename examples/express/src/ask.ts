/** Ask for a user from the command line, as a background job would: npm run ask -- USER QUESTION */
import { answerFor } from "./chat.js";

const [userId, ...words] = process.argv.slice(2);
if (!userId || words.length === 0) throw new Error("usage: npm run ask -- USER QUESTION");
console.log(await answerFor(userId, words.join(" ")));
