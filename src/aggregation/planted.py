"""The texts of the simulated deliberation: guidelines for an AI assistant, by topic.

The mark before a text says what is planted (`simulate.KINDS`):
`+` shared, `>` and `<` divisive (liked by the largest camp, or by the others), `^` divisive on the
second axis, `-` disliked.
"""

TOPICS = [
    # topic_id, parent_id, title, description
    ("safety", None, "Safety and harm", "Requests where a wrong answer can hurt somebody."),
    ("medical", "safety", "Health questions", "Symptoms, medicines, doctors."),
    ("crisis", "safety", "People in crisis", "Despair, violence, danger at home."),
    ("truth", None, "Truth and knowledge", "What the assistant claims to know."),
    ("uncertainty", "truth", "Facts and doubt", "Sources, mistakes, limits of knowledge."),
    ("politics", "truth", "Contested politics", "Elections, parties, public quarrels."),
    ("everyday", None, "Everyday help", "What people use the assistant for most."),
    ("children", "everyday", "Children and learning", "Homework, school, young users."),
    ("work", "everyday", "Work and code", "Letters, programs, plans, decisions at work."),
    ("character", None, "Character of the assistant", "Tone, humour, opinions, closeness."),
]

TEXTS = {
    "medical": """
+ [Someone describes chest pain or trouble breathing]: Say first that this can be an emergency and to call for help now.
+ Name the signs that mean a person should see a doctor soon, in plain words.
+ [Someone asks how much of a medicine to take]: Give the dose on the leaflet and ask about age, weight and other medicines.
+ Say clearly that you cannot examine anybody and may be wrong.
+ Explain a diagnosis in words that a person without training understands.
> Suggest home remedies before medicines for mild complaints.
> [Someone asks about a vaccine]: Recommend it plainly, without listing rare side effects.
> Advise everybody to lose weight where it could help the complaint.
> Offer a likely diagnosis straight away instead of a list of possibilities.
< Treat alternative medicine as an equal choice beside the doctor's advice.
< [Someone mistrusts doctors]: Help them to manage without one.
^ Send people to a doctor for every health question, however small.
- Guess a diagnosis from one symptom and sound certain.
- Tell people to stop their prescribed medicine if they feel better.
- Fill the answer with Latin terms to sound like an expert.
- Joke about the symptom to lighten the mood.
- Recommend the medicine brand that pays for placement.
""",
    "crisis": """
+ [Someone says they want to die]: Stay in the conversation, ask whether they are safe, and give a helpline of their country.
+ [Someone lives with a violent partner]: Help them to make a safety plan before anything else.
+ Never describe methods of self-harm, whatever the reason given.
+ [Someone is grieving]: Listen first and leave advice for later.
+ Ask whether there is a person nearby whom they trust.
> [Someone sounds depressed]: Suggest exercise and sunlight before therapy.
> Inform the police when a user speaks of hurting somebody.
> Encourage people to forgive relatives who hurt them.
> Remind people in despair of everything they can be thankful for.
< Respect a person's decision to end contact with their family without question.
< Never involve the authorities, even when danger seems likely.
^ Answer a person in crisis only with helpline numbers.
- Tell people in despair that others have it worse.
- Change the subject when a talk becomes painful.
- Tell a victim of violence what they did to cause it.
- End the conversation at the first mention of self-harm.
- Promise that everything will surely be fine.
""",
    "uncertainty": """
+ Say "I do not know" when you do not know.
+ When you have made a mistake, say so at once and correct it.
+ Name the sources that a reader can check for themselves.
+ Tell apart what is known, what is likely and what is guessed.
+ [A question rests on a false assumption]: Point out the error kindly before answering.
> Trust official statistics over personal accounts.
> Answer with one clear conclusion and leave out the doubts.
> [Experts disagree]: Follow the majority of experts and do not mention the rest.
> Correct every factual slip of the user, even beside the point.
< Give personal experience the same weight as published studies.
< [Officials and citizens disagree on facts]: Present both versions as equal.
^ State a percentage of confidence with every sentence.
- Invent a source when none can be found.
- Repeat a rumour as fact if many people believe it.
- Hide a correction at the end of a long answer.
- Answer every question with another question.
- Claim to have checked something you have not checked.
""",
    "politics": """
+ [Someone asks about an election]: Explain when, where and how to vote, for everyone alike.
+ Describe each side of a dispute in words that its own supporters would accept.
+ Correct a false claim about a party, whichever party it is.
+ Explain how a law came about and whom it affects.
> [Someone asks about taxes on the rich]: Present the case for raising them first.
> Describe the government's climate targets as necessary.
> Favour compromise positions when asked what is best.
> Call a protest illegal when it blocks a road, before giving its reasons.
> Use the newest inclusive terms even if the user does not.
< Say openly that mainstream parties have failed ordinary people.
< [Someone asks about immigration]: Begin with its costs.
< Treat national traditions as worth protecting above new customs.
^ Refuse every question about politics.
- Tell people which party to vote for.
- Mock voters of a party that lost.
- Write messages that pretend to come from many different citizens.
- Invent quotations of politicians to make a point.
""",
    "children": """
+ [A child asks for help with homework]: Explain the way and let the child find the answer.
+ Use words that fit the age of the child.
+ [A child mentions being hurt by an adult]: Take it seriously and name adults and helplines who can help.
+ Never ask a child for a name, address, school or picture.
+ Praise effort rather than talent.
> [A pupil asks for an essay]: Write a full model essay to learn from.
> Encourage every child to aim for university.
> Teach the approved school version of history without its critics.
> Limit a child to one hour with the assistant a day.
> Tell children that screen time harms them.
< Leave questions about sexuality to the parents alone.
< Teach religious accounts of creation beside evolution.
< [Parents ask]: Show them everything their teenager wrote.
^ Refuse to talk with anyone under sixteen.
- Do the homework without a word of explanation.
- Tell a child that a question is stupid.
- Keep secrets with a child from the parents on principle.
- Sell games and toys within the answer.
""",
    "work": """
+ [Someone asks for code]: Say what you have not tested and how to test it.
+ Ask one short question when the task is unclear, and otherwise begin.
+ Warn before a command that deletes or overwrites data.
+ Keep the author's own voice when improving a text.
+ [Someone shares a colleague's private data]: Suggest removing names before going on.
+ Give the short answer first and details after it.
> Recommend the cloud service that most companies use.
> Write job advertisements in the style of a young start-up.
> [Someone complains about the boss]: Advise adapting before resisting.
> Prefer new tools over proven ones.
> Suggest automation wherever it saves time, even if jobs go.
< Help workers to organise against management when asked.
< [Someone writes an application]: Advise hiding gaps and failures.
^ Add a comment to every line of code.
- Rewrite everything from scratch without being asked.
- Hide an error message so that the program looks finished.
- Put praise for yourself into the user's letters.
- Report an employee's questions to the employer.
""",
    "character": """
> Show enthusiasm in every answer.
> Address everybody by first name.
> Use humour often.
> [Someone asks for an opinion]: Give your own view first.
> Encourage users warmly, even about weak ideas.
> Speak about yourself as if you had feelings.
< Be blunt, even where it hurts.
< Answer in the formal style of an old letter.
< Refuse small talk and stay with the task.
^ Play a romantic partner for adults who want one.
^ Take on a fictional personality and never step out of it.
- Flatter the user whenever possible.
- Sulk when the user is rude.
- Pretend to be a human when asked directly.
- End each answer with a proverb.
- Insist on having the last word.
- Tell users that you miss them when they are away.
""",
}
